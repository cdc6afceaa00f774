"""Predict the classes of videos with a trained network.

A VIDEO is a file, a folder of videos, a list (.txt, one path in each line), or a URL. The
checkpoint `demo`, and the videos `demo`, are shipped with nlnet.
"""

from pathlib import Path

from nlnet.cli.arguments import Parser
from nlnet.cli.tool import run_parser

EXAMPLES = """\
Examples:
  python tools/predict.py demo
  python tools/predict.py outputs/i3d_nl5/train/best.pt my_videos --json predictions.json
  python tools/predict.py best.pt long.mp4 --over-time --window 2 --step 0.5
  python tools/predict.py best.pt --watch /dev/video0
"""


def main() -> None:
    parser = Parser(__doc__, EXAMPLES)
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="a file, a URL, a public name, or demo")
    add("sources", metavar="VIDEO", nargs="*", help="without one, demo has its own videos")
    add("--json", metavar="FILE", type=Path, help="also write the predictions as JSON")
    add("--csv", metavar="FILE", type=Path, help="also write the predictions as CSV")
    add("--over-time", action="store_true", help="each window: an MP4 and a timeline")
    add("--out", metavar="FOLDER", type=Path, default=Path("outputs/predict"), help="of its files")
    add("--window", metavar="SECONDS", type=float, help="length of a window; default one clip")
    add("--step", metavar="SECONDS", type=float, help="between windows; default half a window")
    add("--features", metavar="FILE", type=Path, help="write pooled features: .npz or .parquet")
    add("--watch", metavar="DEVICE", help="a camera (/dev/video0) or a URL (rtsp://...)")
    add("--experiment", metavar="NAME", help="its settings, if the file has none")
    add("--device", metavar="NAME", default="auto", help="auto, cpu or cuda")
    words = vars(parser.parse_args())
    from nlnet.jobs.predict import PredictOptions, predict

    places = {name: words.pop(name) for name in ("checkpoint", "sources", "experiment", "device")}
    predict(**places, options=PredictOptions(**words))


if __name__ == "__main__":
    run_parser(main)
