"""Draw what the network receives: clips after augmentation, with labels and file names.

Examples:
  python tools/inspect_data.py +experiment=i3d_nl5 data.root=/data/kinetics400
  python tools/inspect_data.py +experiment=folder augmentation=modern data.root=my_videos clips=12
  python tools/inspect_data.py +experiment=folder data.root=my_videos split=test out=test.png

Writes a PNG, by default outputs/<name>/inspect_data/clips.png. The clips are the first ones of the
first epoch, or the views of the first videos of split=val and split=test.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from nlnet.cli.tool import run_tool

if TYPE_CHECKING:
    from nlnet.config import InspectConfig


def main(run: "InspectConfig", out_dir: Path) -> None:
    """Write the picture, and print its path."""
    from nlnet.jobs.inspect_data import inspect_data

    print(inspect_data(run, out_dir))


if __name__ == "__main__":
    run_tool(main, config="inspect_data", doc=__doc__ or "")
