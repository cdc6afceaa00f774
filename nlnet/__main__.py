"""The console command `nlnet`: its verbs are the tools, `nlnet train` is tools/train.py."""

import ast
import runpy
import sys
from difflib import get_close_matches
from pathlib import Path

import nlnet
from nlnet.cli.choices import TOOL_DIR


def main() -> None:
    """Run the tool that the first word names, with the other words.

    Exit codes: those of the tool; 2 for an unknown verb.
    """
    tools = {path.stem: path for path in sorted(TOOL_DIR.glob("*.py"))}
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in ("-h", "--help"):
        print(usage(tools))
    elif verb == "--version":
        print(f"nlnet {nlnet.__version__}")
    elif verb in tools:
        tool = str(tools[verb])
        sys.argv = [tool, *sys.argv[2:]]
        runpy.run_path(tool, run_name="__main__")
    else:
        nearest = get_close_matches(verb, tools, n=1)
        meant = f"did you mean nlnet {nearest[0]}" if nearest else "see nlnet --help"
        print(f"error: nlnet {verb}: no such verb of {', '.join(tools)}; {meant}", file=sys.stderr)
        sys.exit(2)


def usage(tools: dict[str, Path]) -> str:
    """The verbs and what each does: the first sentence of its tool."""
    lines = ["Training of video action recognition with non-local networks.", ""]
    lines += ["Usage: nlnet VERB [WORDS]", "", "Verbs:"]
    for verb, path in tools.items():
        doc = ast.get_docstring(ast.parse(path.read_text())) or ""
        lines.append(f"  {verb:<10} {doc.splitlines()[0]}")
    lines += [
        "",
        "nlnet VERB --help lists the words of a verb. nlnet --version prints the version.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
