"""Show what the non-local blocks of a trained network attend to in a video.

It writes attention.png (arrows from a query, heat maps over the frames) and a GIF for each block.
--method gradcam shows what raises the predicted class, for any network. Positions are t,y,x in
frames and pixels of the clip: the center crop of the middle clip of the video.
"""

from pathlib import Path

from nlnet.cli.arguments import Parser
from nlnet.cli.tool import run_parser

EXAMPLES = """\
Examples:
  python tools/attend.py demo
  python tools/attend.py outputs/i3d_nl5/train/best.pt video.mp4 --block res4.nl3 --query 4,112,112
  python tools/attend.py outputs/i3d/train/best.pt video.mp4 --method gradcam
"""


def main() -> None:
    parser = Parser(__doc__, EXAMPLES)
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="a file, a URL, a public name, or demo")
    add("video", metavar="VIDEO", nargs="?", help="without one, demo has its own video")
    add(
        "--query",
        metavar="T,Y,X",
        default="auto",
        help="auto: the most concentrated; all: mean",
    )
    add("--block", metavar="NAME", help="such as res4.nl3; default all blocks")
    add("--method", metavar="NAME", default="rows", help="rows (of the blocks) or gradcam")
    add("--score", action="store_true", help="blur attended and random positions, and compare")
    add("--npz", action="store_true", help="also write the arrays")
    add("--out", metavar="FOLDER", type=Path, help="default outputs/attend/<video>")
    add("--experiment", metavar="NAME", help="its settings, if the file has none")
    add("--device", metavar="NAME", default="auto", help="auto, cpu or cuda")
    words = vars(parser.parse_args())
    from nlnet.jobs.attend import AttendOptions, attend_video

    places = {name: words.pop(name) for name in ("checkpoint", "video", "experiment", "device")}
    attend_video(**places, options=AttendOptions(**words))


if __name__ == "__main__":
    run_parser(main)
