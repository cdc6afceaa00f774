"""bench=data on short videos and small crops, through the code that measures the large ones."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from nlnet.bench.reading.checks import largest_differences
from nlnet.bench.reading.clips import PROTOCOL, ClipKey, Clips
from nlnet.bench.reading.plan import FULL, QUICK, ReadingPlan, ReadingRow
from nlnet.bench.reading.prepared import prepare_files
from nlnet.bench.reading.readers import Work, find_readers
from nlnet.bench.reading.resizing import resize_share
from nlnet.bench.reading.rounds import Measured, Spread, cpu_seconds, ratio
from nlnet.bench.reading.run import measure_reading_plan
from nlnet.bench.reading.tables import reading_lines
from nlnet.bench.reading.training import Steps
from nlnet.bench.reading.videos import bit_rate, write_videos
from nlnet.data.clip_sampling import ClipShape
from nlnet.data.decoding.pyav import PyAVReader

SHAPE = ClipShape(2, 4)
FRAMES = 24


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """Two originals, copies and shards of them."""
    folder = tmp_path_factory.mktemp("reading")
    return prepare_files(write_videos(folder / "original", 2, FRAMES), folder / "prepared")


def test_the_generated_videos_have_the_form_that_is_said(videos):
    original, copy = (videos[form].path(0) for form in ("original", "prepared"))
    with PyAVReader(original) as ours, PyAVReader(copy) as again:
        assert ours.num_frames == again.num_frames == FRAMES
        assert ours.read(np.array([0])).shape == again.read(np.array([0])).shape == (1, 256, 340, 3)
        assert ours._index is not None and again._index is not None
        assert ours._index.keys == [0]
        assert max(np.diff([*again._index.keys, FRAMES])) <= 16
    assert 1e5 < bit_rate(original) < 1e6


def test_all_readers_give_the_same_frames_and_nearly_the_same_views(videos):
    readers, remark = find_readers()
    assert ("torchcodec" in readers) == (remark is None)
    clips = PROTOCOL.test(SHAPE, FRAMES, 3)
    found = largest_differences(readers, videos, clips, crop_size=224)
    assert found["frames of pytorchvideo"] == 0
    assert found["frames of the prepared file"] > 0


def test_readers_that_do_other_work_are_refused(videos):
    other = {**videos, "prepared": videos["prepared"].select(np.array([1]))}
    with pytest.raises(RuntimeError, match="prepared"):
        largest_differences(
            find_readers()[0], other, PROTOCOL.test(SHAPE, FRAMES, 1), crop_size=224
        )


def test_shards_hold_the_copies(videos):
    views = {}
    for form in ("prepared", "shards"):
        clips = Clips(videos[form], FRAMES, find_readers()[0]["nlnet"], Work(32), SHAPE)
        [views[form]] = clips[ClipKey(1, 0)]
    assert views["shards"].equal(views["prepared"])


@pytest.mark.parametrize("num_clips", [None, 2])
def test_a_sample_has_the_same_clips_for_every_reader(videos, num_clips: int | None):
    taken = {}
    for name in ("first", "second"):

        def read(index, i, numbers, work, rng, name=name):
            taken[name] = (index.path(i), [clip.tolist() for clip in numbers])
            return []

        clips = Clips(videos["original"], FRAMES, read, Work(32), SHAPE, num_clips)
        clips[ClipKey(1, 3)]
    assert taken["first"] == taken["second"]
    assert len(taken["first"][1]) == (num_clips or 1)
    assert taken["first"][0] == videos["original"].path(1)


def test_the_processor_time_of_another_process_is_measured():
    code = "import time\nwhile time.process_time() < 0.3: pass\nprint(1, flush=True)\ninput()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert 0.3 <= cpu_seconds(child.pid) < 2
        child.communicate(b"\n")
    assert cpu_seconds(os.getpid()) == pytest.approx(time.process_time(), abs=0.1)


def test_ratios_are_taken_round_by_round():
    slow, fast = Measured([2.0, 4.0, 9.0], [1.0] * 3), Measured([1.0, 1.0, 3.0], [1.0] * 3)
    assert ratio(slow, fast) == Spread(3.0, 2.0, 4.0)
    row = ReadingRow(
        "it", SHAPE, Work(32), 1, 1, x_peer=3.0, prepared_x_peer=5.0, prepared_x_ours=1.8
    )
    results = {
        ("nlnet", "original"): fast,
        ("pytorchvideo", "original"): slow,
        ("nlnet", "prepared"): Measured([0.5] * 3, [1.0] * 3),
    }
    lines = reading_lines(row, results)
    assert [(line.ratio.middle, line.wanted) for line in lines if line.ratio] == [
        (3.0, ">= 3"),
        (1.0, ""),
        (8.0, ">= 5"),
        (2.0, ">= 1.8"),
    ]


def test_a_share_of_the_transform_is_measured():
    frames = np.zeros((4, 64, 80, 3), np.uint8)
    seconds, share = resize_share(frames, 32, rounds=2)
    assert 0 < seconds < 10
    assert 0 < share.low <= share.middle <= share.high < 10


def test_the_quick_plan_is_a_part_of_the_full_one():
    names = {(row.name, row.workers) for row in FULL.rows}
    assert {(row.name, row.workers) for row in QUICK.rows} < names
    assert set(QUICK.training) < set(FULL.training)


@pytest.mark.slow
def test_a_whole_benchmark_of_short_videos():
    """One training clip and the views of a video, each reader in a worker; two training steps."""
    plan = ReadingPlan(
        videos=2,
        num_frames=FRAMES,
        crop_size=224,
        rounds=1,
        rows=(
            ReadingRow("clips", SHAPE, Work(224), 2, 4, x_peer=3.0),
            ReadingRow("views", SHAPE, Work(224, is_test=True), 1, 1, num_clips=2),
        ),
        training={"i3d_tiny": Steps(2, 32, batch=2, steps=1, rounds=1)},
    )
    report = measure_reading_plan(plan)
    lines = report.numbers["lines"]
    assert isinstance(lines, list)
    readers = [line["reader"] for line in lines if line["work"] == "clips"]
    assert readers[:2] == ["nlnet, original", "pytorchvideo, original"]
    assert readers[-2:] == ["nlnet, prepared", "nlnet, shards"]
    for line in lines:
        assert line["ratio"].low > 0
        assert line["rate"] is None or line["rate"] > 0
    assert "of batches in memory" in report.markdown
    assert ">= 0.9" in report.markdown and "<= 0.13" in report.markdown
