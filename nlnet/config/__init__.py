"""The configuration of a run: the name, type, default and meaning of every key.

One file per group: model.py, data.py, optim.py, trainer.py, debug.py, run.py. In
model, data, trainer and distributed, only `build.py` reads these classes; all other modules there
take plain keywords. Hydra merges the YAML files of `configs/` over them. It refuses a misspelled
key, or a word instead of a number, when it reads the command.
"""

from nlnet.config.data import AugmentConfig, ClipConfig, DataConfig, ViewsConfig
from nlnet.config.debug import DebugConfig
from nlnet.config.migration import read_run_tree
from nlnet.config.model import (
    ModelConfig,
    NonLocalConfig,
    PytorchvideoConfig,
    ResNetConfig,
    StageFrames,
    StageKernels,
    StageSizes,
)
from nlnet.config.optim import (
    AdamWConfig,
    CosineConfig,
    OptimConfig,
    ScheduleConfig,
    SGDConfig,
    StepConfig,
)
from nlnet.config.run import BenchmarkConfig, DescribeConfig, DistConfig, InspectConfig, RunConfig
from nlnet.config.schemas import register_schemas
from nlnet.config.text import parse_run, run_text
from nlnet.config.trainer import TrainerConfig

__all__ = [
    "AdamWConfig",
    "AugmentConfig",
    "BenchmarkConfig",
    "ClipConfig",
    "CosineConfig",
    "DataConfig",
    "DebugConfig",
    "DescribeConfig",
    "DistConfig",
    "InspectConfig",
    "ModelConfig",
    "NonLocalConfig",
    "OptimConfig",
    "PytorchvideoConfig",
    "ResNetConfig",
    "RunConfig",
    "SGDConfig",
    "ScheduleConfig",
    "StageFrames",
    "StageKernels",
    "StageSizes",
    "StepConfig",
    "TrainerConfig",
    "ViewsConfig",
    "parse_run",
    "read_run_tree",
    "register_schemas",
    "run_text",
]
