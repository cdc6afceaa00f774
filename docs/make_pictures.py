"""Make the pictures of attention in the documentation, from the demonstration checkpoint.

The network and the videos are those of `nlnet attend demo`, so that anybody can make the pictures
again: python docs/make_pictures.py
"""

from pathlib import Path

from PIL import Image

import nlnet
from nlnet.demo import VIDEOS
from nlnet.files import write_atomic
from nlnet.recognizer.recognizer import Recognizer
from nlnet.report.attention_pictures import png, strip

FOLDER = Path(__file__).parent / "pictures"
COLORS = 64  # of a picture
QUERY = (7, 48, 40)  # t, y, x: a pixel of the second object of the video of the class "same"


def pictures(recognizer: Recognizer) -> dict[str, bytes]:
    """File name -> PNG file."""
    video = next(path for path in VIDEOS if path.stem == "same")
    attentions = {
        "attention_rows.png": recognizer.attention(video, QUERY, "res3.nl0"),
        "attention_gradcam.png": recognizer.attention(video, method="gradcam"),
    }
    return {name: png(_reduced(strip(each))) for name, each in attentions.items()}


def _reduced(picture: Image.Image) -> Image.Image:
    """The picture with a palette that keeps rare colors, without dithering: a small file."""
    return picture.quantize(COLORS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, data in pictures(nlnet.load("demo", device="cpu")).items():
        write_atomic(FOLDER / name, data)
        print(f"{FOLDER / name}: {len(data)} bytes")
