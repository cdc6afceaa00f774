"""Compare nlnet's reading of your own videos with pytorchvideo's: processor time for a clip.

Both read the same frames of a file and make the same kinds of views at 224 pixels, in turn, in one
process. The table has one row for each file: its bit rate, and for training clips of 8x8 and 32x2
and for the 30 views (10 clips x 3 crops of 8x8) of the test protocol the processor times in ms and
the ratio. `tools/benchmark.py bench=data` does the same with generated files and data workers.

Example:
  python scripts/compare_readers.py clips/*.mp4
"""

import argparse
import sys
import time
from pathlib import Path
from typing import NamedTuple

from nlnet.bench.reading.clips import ClipKey, Clips
from nlnet.bench.reading.readers import Read, Work, read_ours, read_pytorchvideo
from nlnet.cli.sweep import markdown_table
from nlnet.data.clip_sampling import ClipShape
from nlnet.data.decoding.opening import open_video
from nlnet.data.decoding.reader import DecodeError
from nlnet.data.index.video_index import VideoIndex


class Row(NamedTuple):
    """Clips to read: their shape, what is done with them, and how many times."""

    shape: ClipShape
    work: Work
    num_clips: int | None  # of the test protocol; None: one random clip
    repeats: int


ROWS = {
    "8x8": Row(ClipShape(8, 8), Work(224), None, 10),
    "32x2": Row(ClipShape(32, 2), Work(224), None, 10),
    "30 views": Row(ClipShape(8, 8), Work(224, is_test=True), 10, 3),
}


def measure(path: Path, row: Row, num_frames: int) -> tuple[float, float]:
    """Mean processor seconds of nlnet and of pytorchvideo; a first reading is not counted."""
    index = VideoIndex([path], [0], ("video",))
    readers: tuple[Read, Read] = (read_ours, read_pytorchvideo)
    seconds = [0.0, 0.0]
    for k in range(row.repeats + 1):
        for i, read in enumerate(readers):
            clips = Clips(index, num_frames, read, row.work, row.shape, row.num_clips)
            start = time.process_time()
            clips[ClipKey(0, k)]
            seconds[i] += time.process_time() - start if k > 0 else 0.0
    return seconds[0] / row.repeats, seconds[1] / row.repeats


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", nargs="+", type=Path, metavar="VIDEO", help="a video file")
    cells = []
    for path in parser.parse_args().videos:
        try:
            with open_video(path) as video:
                num_frames, rate = video.num_frames, video.rate
        except DecodeError as error:
            sys.exit(str(error))
        bits = 8 * path.stat().st_size * rate / num_frames if rate else float("nan")
        line = [path.name, f"{num_frames}", f"{bits / 1e3:.0f}"]
        for row in ROWS.values():
            ours, peer = measure(path, row, num_frames)
            line.append(f"{peer / ours:.2f} ({1e3 * ours:.0f} / {1e3 * peer:.0f})")
        cells.append(line)
        print(f"{path.name} is measured", file=sys.stderr)
    heads = [f"{name}: ratio (nlnet / pytorchvideo ms)" for name in ROWS]
    print(markdown_table(["file", "frames", "kbit/s", *heads], cells))


if __name__ == "__main__":
    main()
