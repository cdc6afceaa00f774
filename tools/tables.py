"""Print a table of the non-local paper with your numbers beside the published ones.

SWEEP is a folder with finished runs, such as a sweep of tools/train.py. Runs that differ in their
seeds only are one row. For a row without a run, the table shows the command that makes the run.
"""

from pathlib import Path

from nlnet.cli.arguments import Parser
from nlnet.cli.tool import run_parser

EXAMPLES = """\
Examples:
  python tools/tables.py outputs/c2d_nl1/sweep_pairwise --paper 2a
  python tools/tables.py outputs/c2d/sweep_blocks --paper 2c --format latex --out blocks.tex
"""


def main() -> None:
    parser = Parser(__doc__, EXAMPLES)
    parser.add_argument("sweeps", metavar="SWEEP", type=Path, nargs="+", help="folder of runs")
    parser.add_argument("--paper", metavar="TABLE", required=True, help="2a, 2b, ... or 2g")
    parser.add_argument(
        "--format", default="markdown", metavar="FORMAT", help="markdown, latex or html"
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help="else the table is printed")
    arguments = parser.parse_args()
    from nlnet.checks import one_of
    from nlnet.files import write_text
    from nlnet.report.formats import FORMATS
    from nlnet.report.paper import TABLES
    from nlnet.report.tables import paper_table

    one_of("--paper", arguments.paper, TABLES)
    text = one_of("--format", arguments.format, FORMATS)
    table = text(paper_table(arguments.sweeps, arguments.paper))
    if arguments.out is None:
        print(table, end="")
    else:
        write_text(arguments.out, table)
        print(arguments.out)


if __name__ == "__main__":
    run_parser(main)
