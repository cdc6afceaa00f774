"""The demonstration: a small trained checkpoint and two videos, which are files of the package.

The checkpoint is a C2D with two non-local blocks, trained on the generated data set "same or
different?". scripts/make_demo.py makes these files. Commands that take a checkpoint or a video
accept the word DEMO for them.
"""

from pathlib import Path

DEMO = "demo"
FOLDER = Path(__file__).parent
CHECKPOINT = FOLDER / "demo.pt"
VIDEOS = (FOLDER / "same.mp4", FOLDER / "different.mp4")
