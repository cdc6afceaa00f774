"""The names of the images in a folder of frames: img_00001.jpg, 000001.png and similar ones.

The digits at the end of a name, before its suffix, are the number of the frame. Names of one folder
have the same prefix.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from nlnet.data.decoding.reader import DecodeError

FRAME_NAME = re.compile(r"(?!\.)(?P<prefix>.*?)(?P<number>\d+)\.(?i:jpe?g|png)", re.DOTALL)
# Of several prefixes, that of the RGB frames: img_00001.jpg is often beside flow_x_00001.jpg.
USUAL_PREFIXES = frozenset({"", "img", "img_", "image", "image_", "frame", "frame_"})


def has_frame_name(name: str) -> bool:
    """Whether a file name is that of a frame."""
    return FRAME_NAME.fullmatch(name) is not None


def frame_names(folder: Path) -> list[str]:
    """The names of the images of a folder, frame by frame.

    Raises DecodeError if there is none, if a number is missing or stands twice, if the first number
    is neither 0 nor 1, and if images with several prefixes are there.
    """
    try:
        with os.scandir(folder) as scan:
            files = [item.name for item in scan if has_frame_name(item.name) and item.is_file()]
    except OSError as error:
        raise DecodeError(folder, error.strerror or "cannot be opened") from error
    names = _of_one_prefix(folder, files)
    numbers = sorted(names)
    if numbers[0] > 1:
        cause = f"its first frame is {names[numbers[0]]}; numbers must begin with 0 or 1"
        raise DecodeError(folder, cause)
    missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    if missing:
        before, after = next(pair for pair in pairwise(numbers) if pair[1] > pair[0] + 1)
        what = "a frame is missing" if missing == 1 else f"{missing} frames are missing"
        where = "" if missing == 1 else ", the first"
        raise DecodeError(folder, f"{what}{where} between {names[before]} and {names[after]}")
    return [names[number] for number in numbers]


def _of_one_prefix(folder: Path, files: Iterable[str]) -> dict[int, str]:
    """Number and name of each image with the prefix of the RGB frames."""
    groups: dict[str, dict[int, str]] = defaultdict(dict)
    for name in sorted(files):
        match = FRAME_NAME.fullmatch(name)
        assert match is not None
        group, number = groups[match["prefix"]], int(match["number"])
        if number in group:
            raise DecodeError(folder, f"{group[number]} and {name} have the same number")
        group[number] = name
    if not groups:
        raise DecodeError(folder, "has no frame, such as img_00001.jpg")
    chosen = [prefix for prefix in groups if prefix.lower() in USUAL_PREFIXES]
    if len(groups) > 1 and len(chosen) != 1:
        first, second, *_ = (min(group.values()) for group in groups.values())
        raise DecodeError(folder, f"has frames of two kinds, {first} and {second}")
    return groups[chosen[0] if len(groups) > 1 else next(iter(groups))]
