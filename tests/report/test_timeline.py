"""The timeline of predictions: its colors, its times, and the picture itself."""

import io

import numpy as np
import pytest
from PIL import Image

from nlnet.recognizer.prediction import ClassScore, WindowPrediction, boundaries
from nlnet.report.plots import COLORS
from nlnet.report.timeline import class_colors, minutes, timeline

NAMES = [f"class {k}" for k in range(9)]


def part(start: float, end: float, probabilities: list[float]) -> WindowPrediction:
    best = int(np.argmax(probabilities))
    top = (ClassScore(NAMES[best], probabilities[best]),)
    return WindowPrediction(start, end, top, np.array(probabilities))


PARTS = [
    part(0, 2, [0, 0, 0.4, 0.3, 0.3, 0, 0, 0, 0]),
    part(1, 3, [0, 0, 0.2, 0, 0, 0, 0, 0.35, 0.3]),
    part(2, 3.5, [0, 0, 0.9, 0, 0.1, 0, 0, 0, 0]),
]


def test_the_best_classes_have_the_first_colors():
    colors = class_colors(PARTS, NAMES)
    assert list(colors.values()) == list(COLORS[: len(colors)])
    assert list(colors)[:5] == [NAMES[k] for k in (2, 7, 3, 4, 8)]


def test_windows_meet_halfway_between_their_centers():
    assert boundaries(PARTS).tolist() == [0, 1.5, 2.375, 3.5]
    assert boundaries(PARTS[:1]).tolist() == [0, 2]


@pytest.mark.parametrize("scale", [1, 1000])
def test_the_picture_is_a_png_of_one_size(scale: int):
    parts = [part(p.start * scale, p.end * scale, list(p.probabilities)) for p in PARTS]
    with Image.open(io.BytesIO(timeline(parts, NAMES, "video"))) as picture:
        assert (picture.format, picture.size) == ("PNG", (1080, 456))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00")]
)
def test_times_are_minutes_and_seconds(seconds: float, text: str):
    assert minutes(seconds) == text
