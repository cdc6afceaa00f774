"""The types of the configuration, registered with Hydra."""

from hydra.core.config_store import ConfigStore

from nlnet.config.model import PytorchvideoConfig, ResNetConfig
from nlnet.config.optim import AdamWConfig, CosineConfig, SGDConfig, StepConfig
from nlnet.config.run import BenchmarkConfig, DescribeConfig, InspectConfig, RunConfig


def register_schemas() -> None:
    """Register the schemas that the files of `configs/` name in their defaults lists.

    The tools call this function; an import alone registers nothing.
    """
    store = ConfigStore.instance()
    store.store(name="run_schema", node=RunConfig)
    store.store(name="describe_schema", node=DescribeConfig)
    store.store(name="inspect_schema", node=InspectConfig)
    store.store(name="benchmark_schema", node=BenchmarkConfig)
    # The stem chooses the type of `model`: stems of ResNets have keys that no other network has.
    store.store(group="stem", name="resnet_schema", node=ResNetConfig, package="model")
    store.store(group="stem", name="pytorchvideo_schema", node=PytorchvideoConfig, package="model")
    store.store(group="optim", name="sgd_schema", node=SGDConfig)
    store.store(group="optim", name="adamw_schema", node=AdamWConfig)
    store.store(group="schedule", name="step_schema", node=StepConfig)
    store.store(group="schedule", name="cosine_schema", node=CosineConfig)
