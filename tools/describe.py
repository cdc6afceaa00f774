"""Print what a network is made of and what it costs, stage by stage, without running it.

Examples:
  python tools/describe.py +experiment=i3d_nl5
  python tools/describe.py +experiment=c2d_nl5 data.clip.crop_size=256 json=c2d_nl5.json
  python tools/describe.py +experiment=i3d_nl10_r101 block=dot_product

One clip of data.clip is counted (T frames, a crop_size square). A multiply-add is one
multiplication with its addition; published tables call it a FLOP.
"""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

import hydra
from omegaconf import DictConfig

from nlnet.cli.folders import write_text
from nlnet.cli.sweep import markdown
from nlnet.cli.tool import run_tool, to_run
from nlnet.config import DescribeConfig, register_schemas
from nlnet.model.build import build_model
from nlnet.model.cost import Stage, describe

NUM_CLASSES = 400  # Kinetics-400, as published counts


def table(stages: list[Stage]) -> str:
    """The stages and their totals as lines of a table."""
    header = ["stage", "output C x T x H x W", "parameters", "multiply-adds", "memory", "non-local"]
    cells = [
        [
            stage.name,
            " x ".join(str(size) for size in stage.output),
            f"{stage.parameters:,}",
            f"{stage.multiply_adds / 1e9:.2f} G",
            f"{stage.activation_bytes / 2**20:.1f} MiB",
            " ".join(stage.non_local),
        ]
        for stage in stages
    ]
    total = [
        "total",
        "",
        f"{sum(stage.parameters for stage in stages):,}",
        f"{sum(stage.multiply_adds for stage in stages) / 1e9:.2f} G",
        f"{sum(stage.activation_bytes for stage in stages) / 2**20:.1f} MiB",
        str(sum(len(stage.non_local) for stage in stages)),
    ]
    return markdown(header, [*cells, total])


@hydra.main(version_base="1.3", config_path="../configs", config_name="describe")
def main(cfg: DictConfig) -> None:
    run: DescribeConfig = to_run(cfg)
    clip = run.data.clip
    stages = describe(partial(build_model, run.model, NUM_CLASSES), clip.num_frames, clip.crop_size)
    print(f"{run.name}: {clip.num_frames} x {clip.crop_size} x {clip.crop_size}, batch 1, float32")
    print(table(stages))
    if run.json is not None:
        summary = {
            "parameters": sum(stage.parameters for stage in stages),
            "multiply_adds": sum(stage.multiply_adds for stage in stages),
            "stages": [asdict(stage) for stage in stages],
        }
        write_text(Path(run.json), json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    register_schemas()
    run_tool(main, __doc__)
