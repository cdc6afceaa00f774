"""Print what a network consists of and what it costs, stage by stage, without running it.

Examples:
  python tools/describe.py +experiment=i3d_nl5
  python tools/describe.py +experiment=c2d_nl5 data.clip.crop_size=256 json=c2d_nl5.json
  python tools/describe.py +experiment=i3d_nl10_r101 block=dot_product

The counts are for one clip of data.clip (T frames, a square of crop_size). A multiply-add is one
multiplication with its addition; published tables call it a FLOP.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from nlnet.cli.tool import run_tool

if TYPE_CHECKING:
    from nlnet.config import DescribeConfig


def main(run: "DescribeConfig", out_dir: Path) -> None:
    """Print the table, and write it to the file that `json` names."""
    from nlnet.files import write_text
    from nlnet.jobs.describe import describe_network, summary, table

    stages = describe_network(run)
    clip = run.data.clip
    print(f"{run.name}: {clip.num_frames} x {clip.crop_size} x {clip.crop_size}, batch 1, float32")
    print(table(stages))
    if run.json is not None:
        write_text(Path(run.json), json.dumps(summary(stages), indent=2) + "\n")


if __name__ == "__main__":
    run_tool(main, config="describe", doc=__doc__ or "")
