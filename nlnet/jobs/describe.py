"""A table of what a network costs, stage by stage."""

from dataclasses import asdict
from typing import Any

from nlnet.cli.sweep import markdown_table
from nlnet.config import RunConfig
from nlnet.model.build import describe_model
from nlnet.model.cost import Stage

NUM_CLASSES = 400  # Kinetics-400, as in published counts


def describe_network(run: RunConfig) -> list[Stage]:
    """The stages of a run's network for one clip of data.clip; computes no numbers.

    Raises UsageError if the clip is too short or too small for the network.
    """
    clip = run.data.clip
    return describe_model(
        run.model, NUM_CLASSES, num_frames=clip.num_frames, crop_size=clip.crop_size
    )


def table(stages: list[Stage]) -> str:
    """The stages and their totals as lines of a Markdown table."""
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
    return markdown_table(header, [*cells, total])


def summary(stages: list[Stage]) -> dict[str, Any]:
    """The same as plain numbers, for a JSON file."""
    return {
        "parameters": sum(stage.parameters for stage in stages),
        "multiply_adds": sum(stage.multiply_adds for stage in stages),
        "stages": [asdict(stage) for stage in stages],
    }
