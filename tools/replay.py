"""Rebuild the clips of a training step, for instance of one that was skipped.

STEP counts the steps of the whole run from 1; skipped.json in the run folder lists the steps whose
loss or gradient was not finite. The clips are the same after a restart, in another process and
for another number of ranks; their SHA-256 is compared with the one in skipped.json.
"""

from pathlib import Path

from nlnet.cli.arguments import Parser
from nlnet.cli.tool import run_parser

EXAMPLES = """\
Examples:
  python tools/replay.py outputs/i3d_nl5/train 1200
  python tools/replay.py outputs/i3d_nl5/train 1200 --picture step.png --save step.pt
"""


def main() -> None:
    parser = Parser(__doc__, EXAMPLES)
    add = parser.add_argument
    add("run", metavar="RUN", type=Path, help="a run folder, with config.yaml")
    add("step", metavar="STEP", type=int, help="of the run, from 1")
    add("--root", metavar="FOLDER", type=Path, help="where the videos are, if not in data.root")
    add("--save", metavar="FILE", type=Path, help="write video, label and files for torch.load")
    add("--picture", metavar="FILE", type=Path, help="draw the clips as a PNG")
    words = vars(parser.parse_args())
    from nlnet.jobs.replay import ReplayOptions, replay

    run, step = words.pop("run"), words.pop("step")
    replay(run, step, ReplayOptions(**words), print)


if __name__ == "__main__":
    run_parser(main)
