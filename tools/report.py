"""Write a report of evaluated runs: one HTML file that opens without a network.

RUN is a folder of tools/eval.py, or the folder above it. Several runs are compared: their metrics
side by side, McNemar's test, the differences by class. Needs pip install 'nlnet[report]'.
"""

from pathlib import Path

from nlnet.cli.arguments import Parser
from nlnet.cli.tool import run_parser

EXAMPLES = """\
Examples:
  python tools/report.py outputs/quickstart
  python tools/report.py outputs/c2d outputs/c2d_nl5 --out comparison.html
"""


def main() -> None:
    parser = Parser(__doc__, EXAMPLES)
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="folder of a run")
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help="the HTML file; else report.html in the folder of the evaluation of the first run",
    )
    arguments = parser.parse_args()
    from nlnet.checks import require_libraries

    require_libraries("report", ["jinja2", "matplotlib"])
    from nlnet.report.page import write_report

    out, parts = write_report(arguments.runs, arguments.out)
    for part in parts:
        print(part.summary)
    print(out)


if __name__ == "__main__":
    run_parser(main)
