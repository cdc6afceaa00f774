"""Make the videos of "same or different": two objects, far apart in time.

A colored shape appears in the first frames at a random place and disappears. After frames without
an object, a second one appears in the last frames at another place. The class tells whether both
are the same object. Different objects differ in color, and half of them also in shape. With
--subtle, a third of them differ in color, a third in shape and a third in both.

One object alone does not tell the class: in both classes, the first and the second object are
uniform over all objects, and places and times have the same distributions. Noise, a smooth random
background and gray drifting distractors do not depend on the class.

With --incomplete N, the training split has N more files: N / 2 videos in which one object or both
are missing, each of them in both classes. No network can do better than even probabilities for
these videos. It learns to answer so if it sees no evidence.

Every clip depends on (seed, split, number) alone. Videos are H.264 in mp4 files, in folders
split/class/number.mp4, with the same number of videos in each class. The program makes the files
that are missing and leaves existing files unchanged.

Examples:
  python scripts/make_same_different.py
  python scripts/make_same_different.py --out data/same_different_hard --subtle --noise 20
  python scripts/make_same_different.py --out data/same_different_long --frames 32 --train 8192
  python scripts/make_same_different.py --out data/same_different_demo --incomplete 2048
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from functools import partial
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from tqdm import tqdm

from nlnet.errors import UserError
from nlnet.files import write_atomic

CLASSES = ("different", "same")
COLORS = {
    "red": (220, 40, 40),
    "green": (40, 190, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 215, 40),
    "magenta": (220, 50, 210),
    "cyan": (40, 210, 215),
}
# Whether a point (x, y), in units of half the side, is inside the shape.
SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.9,
    "disc": lambda x, y: x**2 + y**2 < 1,
    "triangle": lambda x, y: (abs(x) < (1 + y) / 2) & (abs(y) < 1),
    "cross": lambda x, y: (np.minimum(abs(x), abs(y)) < 0.34) & (np.maximum(abs(x), abs(y)) < 1),
}
FPS = 8
BOTH = (True, True)  # objects are shown
INCOMPLETE = ((False, False), (True, False), (False, True))  # the objects that are shown
INCOMPLETE_SPLIT = 3  # train, val and test are 0, 1 and 2 in the entropy of a clip


@dataclass(frozen=True)
class Scene:
    """The appearance of the clips; lengths in pixels and frames."""

    size: int = 64  # side of the square frame
    frames: int = 8
    object_size: int = 22
    shapes: int = 4  # the first of SHAPES
    colors: int = 4  # the first of COLORS
    distractors: int = 3
    noise: float = 10.0  # standard deviation of each pixel, of 255
    subtle: bool = False  # different objects may have the same color


class Thing(NamedTuple):
    """A shape and a color, by number."""

    shape: int
    color: int


def choose_things(rng: np.random.Generator, same: bool, scene: Scene) -> tuple[Thing, Thing]:
    """The two objects; in both classes, each of them is uniform over all objects."""
    first = Thing(int(rng.integers(scene.shapes)), int(rng.integers(scene.colors)))
    if same:
        return first, first
    differs = rng.integers(0, 3 if scene.subtle else 2)  # 0: in color, 1: in both, 2: in shape
    # A step of 1 to n - 1, modulo n, gives each other value with the same probability.
    shape_step = rng.integers(1, scene.shapes) if differs != 0 else 0
    color_step = rng.integers(1, scene.colors) if differs != 2 else 0
    second = Thing(
        int(first.shape + shape_step) % scene.shapes,
        int(first.color + color_step) % scene.colors,
    )
    return first, second


def choose_places(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """Centers (2, 2) of the two objects as (x, y): inside the frame, without overlap."""
    half = scene.object_size / 2
    while True:
        places = rng.uniform(half, scene.size - half, size=(2, 2))
        if np.abs(places[0] - places[1]).max() > scene.object_size:
            return places


def choose_times(rng: np.random.Generator, num_frames: int) -> tuple[range, range]:
    """The frames of each object: a quarter to three eighths of the clip, at its start and end."""
    shortest, longest = max(num_frames // 4, 1), max(num_frames * 3 // 8, 1)
    first, second = rng.integers(shortest, longest + 1, size=2)
    return range(first), range(num_frames - second, num_frames)


def draw_background(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """Smooth gray clouds, the same in all frames, and gray squares that drift: (T, H, W, 3)."""
    coarse = rng.uniform(70, 150, size=(5, 5))
    at = np.linspace(0, 4, scene.size)
    low = np.minimum(at.astype(int), 3)
    share = at - low
    rows = coarse[low] * (1 - share[:, None]) + coarse[low + 1] * share[:, None]  # (H, 5)
    clouds = rows[:, low] * (1 - share) + rows[:, low + 1] * share  # (H, W)
    video = np.broadcast_to(clouds[..., None], (scene.frames, scene.size, scene.size, 3)).copy()
    side = max(scene.size // 8, 1)
    for _ in range(scene.distractors):
        start = rng.uniform(0, scene.size, size=2)
        velocity = rng.uniform(-0.5, 0.5, size=2) * scene.size / scene.frames
        level = rng.uniform(20, 235)
        for t in range(scene.frames):
            x, y = ((start + t * velocity) % scene.size).astype(int)
            video[t, y : y + side, x : x + side] = level
    return video


def draw_clip(
    rng: np.random.Generator, same: bool, scene: Scene, shown: tuple[bool, bool] = BOTH
) -> np.ndarray:
    """One clip of a class: uint8 RGB (T, H, W, 3). Objects that are not shown are missing."""
    things = choose_things(rng, same, scene)
    places = choose_places(rng, scene)
    times = choose_times(rng, scene.frames)
    video = draw_background(rng, scene)
    y, x = np.mgrid[: scene.size, : scene.size] + 0.5
    objects = zip(things, places, times, strict=True)
    for thing, place, frames in compress(objects, shown):
        half = scene.object_size / 2
        inside = list(SHAPES.values())[thing.shape]((x - place[0]) / half, (y - place[1]) / half)
        video[frames.start : frames.stop, inside] = list(COLORS.values())[thing.color]
    video += rng.normal(0, scene.noise, size=video.shape)
    return video.round().clip(0, 255).astype(np.uint8)


def write_video(path: Path, frames: np.ndarray, crf: int) -> None:
    """Write a partial file, then rename it, so that an existing file is always complete."""
    partial_path = path.with_suffix(f".{os.getpid()}.partial")
    with av.open(str(partial_path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        # Without cpu-independent, x264 gives different bytes with AVX-512, even in one process.
        stream.options = {
            "crf": str(crf),
            "preset": "veryfast",
            "x264-params": "cpu-independent=1",
        }
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    partial_path.replace(path)


class Job(NamedTuple):
    """One clip to make."""

    path: Path
    same: bool
    entropy: tuple[int, int, int]  # seed, split, number
    shown: tuple[bool, bool] = BOTH


def make_clip(job: Job, *, scene: Scene, crf: int) -> None:
    """Draw and write one clip."""
    rng = np.random.default_rng(job.entropy)
    write_video(job.path, draw_clip(rng, job.same, scene, job.shown), crf)


def all_jobs(out: Path, counts: dict[str, int], seed: int) -> Iterator[Job]:
    """The classes alternate. An incomplete video is in both of them, with the same pixels."""
    for split_number, split in enumerate(("train", "val", "test")):
        for number in range(counts[split]):
            label = number % 2
            path = out / split / CLASSES[label] / f"{number:06d}.mp4"
            yield Job(path, label == 1, (seed, split_number, number))
    for number in range(counts["incomplete"] // 2):
        shown = INCOMPLETE[number % len(INCOMPLETE)]
        for name in CLASSES:
            path = out / "train" / name / f"incomplete_{number:06d}.mp4"
            yield Job(path, False, (seed, INCOMPLETE_SPLIT, number), shown)


def claim(out: Path, settings: dict[str, float]) -> None:
    """Mark a folder as made with these settings.

    Raises UserError if it has other settings or was not made by this program.
    """
    path = out / "settings.json"
    if path.is_file():
        made_with = json.loads(path.read_text())
        if "colours" in made_with:  # the former spelling
            made_with["colors"] = made_with.pop("colours")
        made_with.setdefault("incomplete", 0)  # a new setting
        if made_with != settings:
            raise UserError(f"{out} was made with other settings ({path}); give another --out")
        return
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} is not empty and was not made by this program; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (json.dumps(settings, indent=2) + "\n").encode())


def check(scene: Scene, counts: dict[str, int]) -> None:
    """Raise UserError for numbers that no clip can have."""
    if scene.size % 2 or scene.size < 2 * scene.object_size + 2:
        raise UserError(
            f"--size {scene.size} must be even and at least twice --object-size "
            f"{scene.object_size} plus 2, so that two objects fit into a frame"
        )
    if scene.frames < 4:
        raise UserError(f"--frames {scene.frames} has no frame between the objects; give 4 or more")
    for flag, number, most in (
        ("--shapes", scene.shapes, len(SHAPES)),
        ("--colors", scene.colors, len(COLORS)),
    ):
        if not 2 <= number <= most:
            raise UserError(f"{flag} {number} must be from 2 to {most}")
    for split, count in counts.items():
        if count % 2 or count < (0 if split == "incomplete" else 2):
            raise UserError(f"--{split} {count} must be an even number of 2 or more")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Scene()
    add = partial(parser.add_argument, type=int, metavar="N")
    parser.add_argument("--out", type=Path, default=Path("data/same_different"), help="folder")
    add("--train", default=4096, help="training videos (default %(default)s)")
    add("--val", default=512, help="validation videos (default %(default)s)")
    add("--test", default=512, help="test videos (default %(default)s)")
    add("--incomplete", default=0, help="more training videos without evidence (default 0)")
    add("--size", default=default.size, help="side of a frame, pixels (default %(default)s)")
    add("--frames", default=default.frames, help="frames of a video (default %(default)s)")
    add("--object-size", default=default.object_size, help="pixels (default %(default)s)")
    add("--shapes", default=default.shapes, help="how many shapes (default %(default)s)")
    add("--colors", default=default.colors, help="how many colors (default %(default)s)")
    add("--distractors", default=default.distractors, help="(default %(default)s)")
    add("--noise", type=float, default=default.noise, help="of each pixel (default %(default)s)")
    parser.add_argument("--subtle", action="store_true", help="different objects may share a color")
    add("--crf", default=20, help="H.264 quality, lower is better (default %(default)s)")
    add("--seed", default=0, help="(default %(default)s)")
    add("--workers", default=len(os.sched_getaffinity(0)), help="processes (default: all CPUs)")
    return parser.parse_args()


def main() -> None:
    args = parse()
    given = vars(args)
    counts = {name: given[name] for name in ("train", "val", "test", "incomplete")}
    scene = Scene(**{field.name: given[field.name] for field in fields(Scene)})
    check(scene, counts)
    claim(args.out, {**counts, **asdict(scene), "crf": args.crf, "seed": args.seed})
    jobs = [job for job in all_jobs(args.out, counts, args.seed) if not job.path.exists()]
    for folder in {job.path.parent for job in jobs}:
        folder.mkdir(parents=True, exist_ok=True)
    if jobs:
        make = partial(make_clip, scene=scene, crf=args.crf)
        with ProcessPoolExecutor(args.workers) as pool:
            done = pool.map(make, jobs, chunksize=16)
            for _ in tqdm(done, total=len(jobs), unit="clip", disable=not sys.stderr.isatty()):
                pass
    print(f"{args.out}: {sum(counts.values())} videos, {len(jobs)} of them new")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
