"""Write a report of evaluated runs: one HTML file that opens without a network.

RUN is a folder of tools/eval.py, or the folder above it. Several runs are compared: their metrics
side by side, McNemar's test, the differences by class. The wrong videos show the attention of the
network, or Grad-CAM for a network without blocks. Needs pip install 'nlnet[report]'.
"""

from pathlib import Path

from nlnet.cli.arguments import Parser
from nlnet.cli.tool import run_parser

EXAMPLES = """\
Examples:
  python tools/report.py outputs/quickstart
  python tools/report.py outputs/c2d outputs/c2d_nl5 --out comparison.html
  python tools/report.py outputs/c2d_nl5 --data-root /data/kinetics400 --no-attention
"""


def main() -> None:
    parser = Parser(__doc__, EXAMPLES)
    add = parser.add_argument
    add("runs", metavar="RUN", type=Path, nargs="+", help="folder of a run")
    add("--out", metavar="FILE", type=Path, help="default: report.html beside the first scores.npz")
    add("--data-root", metavar="PATH", type=Path, help="where the videos are now, if they moved")
    add("--no-attention", dest="attention", action="store_false", help="only read the results")
    add("--score-videos", metavar="N", type=int, default=10, help="for deletion scores; default 10")
    words = vars(parser.parse_args())
    from nlnet.jobs.report import ReportOptions, report

    report(words.pop("runs"), ReportOptions(**words))


if __name__ == "__main__":
    run_parser(main)
