"""Measure whether the attention of a network lands on what it uses in "same or different".

The videos are those of a split of a folder that scripts/make_same_different.py made. Use the
validation split to choose settings and the test split to report numbers. For each block, the
program prints two numbers:

  mass      of videos of the class "same": the share of a row inside the box of the first object,
            over the share of the clip that this box has. 1 is attention that ignores the object.
            The query is the center of the second object, in the middle one of its frames
  deletion  of videos of each class: how often the probability of the predicted class falls faster
            if the most attended positions (the mean of all rows) are blurred first than if random
            positions are. The area between both curves is positive then

If a network answers one of the classes without evidence, no deletion lowers the probability of this
class. The probability of the predicted class for a blurred clip is therefore printed, too.

Examples:
  python scripts/score_attention.py
  python scripts/score_attention.py --split val
  python scripts/score_attention.py outputs/quickstart/non_local/train/best.pt --videos 20
"""

import argparse
import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
from make_same_different import CLASSES, Scene, choose_places, choose_things, choose_times

import nlnet
from nlnet.errors import UserError
from nlnet.recognizer.attention import ALL, attend, attention_blocks
from nlnet.recognizer.faithfulness import deletion, share_in_region
from nlnet.recognizer.recognizer import Recognizer

SPLITS = {"val": 1, "test": 2}  # and their numbers in the entropy of a clip


class Boxes(NamedTuple):
    """Where the objects of a clip are, as videos uint8 (T, H, W, 3): 255 inside a box."""

    first: np.ndarray
    second: np.ndarray


class Score(NamedTuple):
    """The numbers of one block on one video."""

    ratio: float  # of mass to area
    area: float  # between the curves of deletion
    blurred: float  # probability of the predicted class if the whole clip is blurred


def read_settings(root: Path, split: str) -> tuple[Scene, int, int]:
    """The scene, the seed and the number of videos of a split of a folder."""
    path = root / "settings.json"
    if not path.is_file():
        raise UserError(f"{path}: no such file; make the videos with make_same_different.py")
    settings = json.loads(path.read_text())
    names = {field.name for field in fields(Scene)}
    scene = Scene(**{name: value for name, value in settings.items() if name in names})
    return scene, settings["seed"], settings[split]


def boxes_of(scene: Scene, same: bool, entropy: tuple[int, int, int]) -> Boxes:
    """The boxes of both objects of a clip: draw_clip draws its random numbers in this order."""
    rng = np.random.default_rng(entropy)
    choose_things(rng, same, scene)
    places = choose_places(rng, scene)
    times = choose_times(rng, scene.frames)
    first, second = (box_video(scene, *where) for where in zip(places, times, strict=True))
    return Boxes(first, second)


def box_video(scene: Scene, center: np.ndarray, frames: range) -> np.ndarray:
    """A video that is white inside the box of an object; its border pixels are gray."""
    pixels = np.arange(scene.size)
    x, y = (
        np.clip(np.minimum(pixels + 1, c + half) - np.maximum(pixels, c - half), 0, 1)
        for c, half in zip(center, [scene.object_size / 2] * 2, strict=True)
    )
    video = np.zeros((scene.frames, scene.size, scene.size, 3), np.uint8)
    video[frames.start : frames.stop] = np.round(255 * np.outer(y, x))[None, :, :, None]
    return video


def center(inside: np.ndarray) -> tuple[int, int, int]:
    """The middle of a region (T, H, W), in the middle one of its frames."""
    t, y, x = (int(np.median(where)) for where in np.nonzero(inside > 0.5))
    return t, y, x


def score(recognizer: Recognizer, video: Path, boxes: Boxes) -> dict[str, Score]:
    """The numbers of each block on one video."""
    first, second = (recognizer.clip(box)[0, 0].numpy() / 255 for box in boxes)
    clip, model = recognizer.clip(video), recognizer.model
    _, rows = attend(model, clip, query=center(second), block=None)
    _, means = attend(model, clip, query=ALL, block=None)
    scores = {}
    for row, mean in zip(rows, means, strict=True):
        curve = deletion(model, clip, mean)
        ratio = share_in_region(row, first).ratio
        scores[row.layer] = Score(ratio, curve.area_between, float(curve.attended[-1]))
    return scores


def report(name: str, label: str, values: list[Score]) -> str:
    """One line for a block and a class."""
    ratio, area, blurred = np.array(values).T
    mass = f"mass {ratio.mean():.1f} times the area of the box, " if label == "same" else ""
    return (
        f"{name}, {label}: {mass}deletion faster than random in {100 * (area > 0).mean():.0f} % of "
        f"the videos, mean area {area.mean():+.3f}; probability of the blurred clip "
        f"{blurred.mean():.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", nargs="?", default="demo", help="(default %(default)s)")
    parser.add_argument("--data", type=Path, default=Path("data/same_different"), help="folder")
    parser.add_argument("--split", choices=SPLITS, default="test", help="(default %(default)s)")
    parser.add_argument("--videos", type=int, default=50, help="(default %(default)s)")
    args = parser.parse_args()
    scene, seed, count = read_settings(args.data, args.split)
    recognizer = nlnet.load(args.checkpoint, device="cpu")
    if not attention_blocks(recognizer.model):
        raise UserError(f"{args.checkpoint}: has no non-local block; give another checkpoint")
    for label, name in enumerate(CLASSES):  # the classes of the numbers alternate
        numbers = range(label, count, 2)[: args.videos]
        scores: dict[str, list[Score]] = {}
        for number in numbers:
            video = args.data / args.split / name / f"{number:06d}.mp4"
            boxes = boxes_of(scene, name == "same", (seed, SPLITS[args.split], number))
            for block, each in score(recognizer, video, boxes).items():
                scores.setdefault(block, []).append(each)
        print(f"{args.checkpoint}: {len(numbers)} videos of {args.data / args.split / name}")
        for block, values in scores.items():
            print(report(block, name, values))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
