"""Prepare a data set: find and measure its videos, and write one manifest that training reads.

NAME: folder, list, kinetics400, kinetics600, kinetics700, ssv2, ucf101, hmdb51, jhmdb, charades,
diving48, jester. `check LIST` tests suspect files again. A repeated command continues.
"""

from pathlib import Path

from nlnet.cli.arguments import Parser
from nlnet.cli.tool import run_parser

EXAMPLES = """\
Examples:
  python tools/prepare.py folder --root my_videos
  python tools/prepare.py kinetics400 --root /data/kinetics400
  python tools/prepare.py hmdb51 --root hmdb51 --split-number 2 --out hmdb51/split2.parquet
  python tools/prepare.py folder --root my_videos --resize 256 --to my_videos_256
  python tools/prepare.py check my_videos/manifest.parquet
"""


def main() -> None:
    parser = Parser(__doc__, EXAMPLES)
    add = parser.add_argument
    add("name", metavar="NAME", help="a data set, or check")
    add("suspects", metavar="LIST", nargs="?", type=Path, help="of check: a manifest, CSV or text")
    add("--root", metavar="DIR", type=Path, help="folder of the data set")
    add("--videos", metavar="DIR", type=Path, help="folder of its videos; default the root")
    add("--annotations", metavar="FILE", type=Path, nargs="+", help="default: found in the root")
    add("--classes", metavar="FILE", type=Path, help="one class name in each line")
    add("--split-number", metavar="N", type=int, help="official split of UCF101, HMDB51, J-HMDB")
    add("--out", metavar="MANIFEST", type=Path, help="default: manifest.parquet in the root")
    add("--verify", metavar="LEVEL", help="packets (default), or full: decode every frame")
    add("--clip", metavar="TxTAU", help="name videos shorter than such a clip; default 8x8")
    add("--workers", metavar="N", type=int, help="processes; default one for each CPU")
    add("--time-limit", metavar="SECONDS", type=float, help="for one file; default 600")
    add("--shards", metavar="SIZE", nargs="?", const="1GB", help="write tar files; default 1GB")
    copies = parser.add_argument_group("copies", "of all videos, that are faster to read")
    add = copies.add_argument
    add("--resize", metavar="SIZE", help="their short side, as in 256, or size, as in 340x256")
    add("--gop", metavar="N", type=int, help="frames between their key frames; default 16")
    add("--crf", metavar="N", type=int, help="their quality, from 0, the best, to 51; default 20")
    add("--frames", metavar="KIND", nargs="?", const="jpg", help="write folders of jpg or png")
    add("--to", metavar="DIR", type=Path, help="their folder, in which their manifest is, too")
    add("--in-place", action="store_true", help="instead of --to: they replace the originals")
    words = vars(parser.parse_args())
    from nlnet.jobs.prepare import run_prepare

    run_prepare(**words)


if __name__ == "__main__":
    run_parser(main)
