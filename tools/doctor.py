"""Check this installation, and print one page for a bug report.

The page holds versions, devices, decoders, missing extras with the command that installs them, and
the results of a self-test of about twenty seconds. It holds no path of yours. The exit code is 1
if a part fails; the lines that begin with ! then say what to do.
"""

import json
from pathlib import Path

from nlnet.cli.arguments import Parser
from nlnet.cli.tool import run_parser

EXAMPLES = """\
Examples:
  python tools/doctor.py
  python tools/doctor.py --json doctor.json
"""


def main() -> None:
    parser = Parser(__doc__, EXAMPLES)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the page as JSON")
    arguments = parser.parse_args()
    from nlnet.errors import UserError
    from nlnet.files import write_text
    from nlnet.jobs.doctor.examine import examine
    from nlnet.jobs.doctor.findings import as_json, failed, page

    sections = examine()
    print(page(sections), flush=True)
    if arguments.json is not None:
        write_text(arguments.json, json.dumps(as_json(sections), indent=1) + "\n")
    if failures := failed(sections):
        raise UserError("; ".join(f"{part.name}: {part.remedy}" for part in failures))


if __name__ == "__main__":
    run_parser(main)
