"""List runs: running, finished, stopped or failed; epoch, age, best validation score.

FOLDER is searched with its subfolders; it is outputs by default. A run folder itself is shown in
detail, with its command. `stopped` is a run that was asked to stop and has saved itself.
"""

from pathlib import Path

from nlnet.cli.arguments import Parser
from nlnet.cli.tool import run_parser

EXAMPLES = """\
Examples:
  python tools/runs.py
  python tools/runs.py outputs --where optim.lr=0.1 --where model.depth=50
  python tools/runs.py --diff outputs/i3d/train outputs/i3d_nl5/train
  python tools/runs.py --watch
"""


def main() -> None:
    parser = Parser(__doc__, EXAMPLES)
    add = parser.add_argument
    add("folder", metavar="FOLDER", type=Path, nargs="?", default=Path("outputs"))
    add("--where", metavar="KEY=VALUE", action="append", default=[], help="only runs with it")
    add("--csv", metavar="FILE", type=Path, help="write all fields, and the keys that differ")
    add("--diff", metavar="RUN", type=Path, nargs=2, help="the keys in which two runs differ")
    add("--watch", metavar="SECONDS", type=float, nargs="?", const=5.0, help="follow running ones")
    words = vars(parser.parse_args())
    from nlnet.jobs.runs import RunsOptions, show_differences, show_runs

    folder, diff = words.pop("folder"), words.pop("diff")
    if diff is not None:
        show_differences(*diff)
    else:
        show_runs(folder, RunsOptions(**words))


if __name__ == "__main__":
    run_parser(main)
