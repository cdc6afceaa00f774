"""Serve a web page that classifies videos with a trained network.

Drop a video on the page: it shows the classes over time, and what the blocks attend to. Only this
machine can open the page; with another --host, its address holds a token that every request needs.
"""

from nlnet.cli.arguments import Parser
from nlnet.cli.tool import run_parser

EXAMPLES = """\
Examples:
  python tools/serve.py demo
  python tools/serve.py outputs/i3d_nl5/train/best.pt --port 8001 --max-seconds 120
  python tools/serve.py best.pt --host 0.0.0.0
"""


def main() -> None:
    parser = Parser(__doc__, EXAMPLES)
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="a file, a URL, a public name, or demo")
    add("--host", metavar="ADDRESS", default="127.0.0.1", help="where it listens")
    add("--port", metavar="NUMBER", type=int, default=8000, help="default 8000; 0: any free one")
    add("--token", metavar="TEXT", help="that requests need; made by itself where it is needed")
    add("--max-mb", metavar="MB", type=float, default=200, help="size of a video; default 200")
    add("--max-seconds", metavar="S", type=float, default=60, help="its length; default 60")
    add("--window", metavar="SECONDS", type=float, help="length of a window; default one clip")
    add("--step", metavar="SECONDS", type=float, help="between windows; default half a window")
    add("--experiment", metavar="NAME", help="its settings, if the file has none")
    add("--device", metavar="NAME", default="auto", help="auto, cpu or cuda")
    words = vars(parser.parse_args())
    from nlnet.checks import require_libraries

    require_libraries("serve", ["starlette", "uvicorn"])
    from nlnet.serve.server import ServeOptions, serve

    places = {name: words.pop(name) for name in ("checkpoint", "experiment", "device")}
    serve(**places, options=ServeOptions(**words))


if __name__ == "__main__":
    run_parser(main)
