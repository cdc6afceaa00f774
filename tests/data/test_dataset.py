from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch

from nlnet.clip import Clip, Failure, Sample
from nlnet.data.clip_sampling import (
    INDEX_RULES,
    SAMPLERS,
    ClipSampler,
    ClipShape,
    FixedClips,
    RandomClip,
    at_rate,
)
from nlnet.data.dataset import KNOWN, VideoDataset, collate
from nlnet.data.decoding.pyav import PyAVReader
from nlnet.data.index.video_index import EntryTable, MeasuredFrames, VideoIndex
from nlnet.data.prepare.probe import probe_video
from nlnet.data.transforms import EvalTransform, JitterCrop, TrainTransform
from nlnet.data.views import Transform
from tests.data.decoding.videos import write_moving_video

VideoFactory = Callable[..., Path]

FOUR = ClipShape(4, 3)
RANDOM = RandomClip(SAMPLERS["dense"], FOUR, INDEX_RULES["loop"])
JITTER = TrainTransform(JitterCrop(24, 32, 48), 24, flip=True, color_jitter=0.0)
WHOLE = EvalTransform(32, 32, 1)


def dataset(
    paths: list[Path],
    *,
    clip_sampler: ClipSampler = RANDOM,
    transform: Transform = JITTER,
    seed: int = 0,
    replacements: int = 0,
) -> VideoDataset:
    index = VideoIndex(paths, range(len(paths)), tuple(str(i) for i in range(len(paths))))
    return VideoDataset(
        index,
        clip_sampler,
        transform,
        open_video=PyAVReader,
        seed=seed,
        replacements=replacements,
    )


def frame_numbers(clip: Clip) -> list[int]:
    """The numbers of the frames, which their gray levels give."""
    return [round(level / 4) for level in clip.video.float().mean((0, 2, 3)).tolist()]


def same(a: Sample, b: Sample) -> bool:
    pairs = zip(a.clips, b.clips, strict=True)
    return a.failures == b.failures and all(
        torch.equal(x.video, y.video) and x.video_id == y.video_id for x, y in pairs
    )


def test_clips_stay_inside_the_frames_of_their_manifest_row(video_file: VideoFactory):
    of_the_file = (np.array([n]) for n in (48, 20, 33, 0, 0))  # of another size: not trusted
    nothing = np.empty(0, np.int64)
    frames = MeasuredFrames(*of_the_file, EntryTable(nothing, nothing, np.zeros(1, np.int64)))
    index = VideoIndex([video_file()], [0], ("a",), frames=frames)
    for number in range(20):
        sampler = RandomClip(SAMPLERS["dense"], FOUR, INDEX_RULES["loop"])
        data = VideoDataset(index, sampler, WHOLE, open_video=PyAVReader, seed=1, replacements=0)
        (clip,) = data[number, 0].clips
        found = frame_numbers(clip)
        assert found == list(range(found[0], found[0] + 10, 3)) and 20 <= found[0] <= found[-1] < 33


def test_what_a_manifest_knows_changes_no_sample(tmp_path: Path):
    """Equal bits; the file is decoded from the key frame before the clip."""
    path = write_moving_video(tmp_path / "a.avi", codec="mpeg4", num_frames=120)
    facts = probe_video(path)
    numbers = (facts.num_frames, 0, facts.num_frames, facts.size, facts.modified)
    entries = (np.array(each) for each in (facts.entry_frames, facts.entry_times))
    frames = MeasuredFrames(
        *(np.array([n]) for n in numbers), EntryTable(*entries, np.array([len(facts.entry_frames)]))
    )
    readers: list[PyAVReader] = []

    def open_video(path: Path, file: BinaryIO | None = None, **options) -> PyAVReader:
        readers.append(PyAVReader(path, file, **options))
        return readers[-1]

    options = {"open_video": open_video, "seed": 3, "replacements": 0}
    plain = VideoDataset(VideoIndex([path], [0], ("a",)), RANDOM, JITTER, **options)
    known = VideoDataset(VideoIndex([path], [0], ("a",), frames=frames), RANDOM, JITTER, **options)
    for epoch in range(10):
        assert same(plain[epoch, 0], known[epoch, 0])
    counts = [reader.num_decoded for reader in readers]
    assert min(counts[::2]) > 120 and max(counts[1::2]) <= 12 + 10


def test_views_are_clips_times_crops_of_the_sampled_frames(video_file: VideoFactory):
    fixed = FixedClips(SAMPLERS["dense"], FOUR, INDEX_RULES["loop"], num_clips=2)
    data = dataset([video_file()], clip_sampler=fixed, transform=EvalTransform(32, 32, 3))
    sample = data[0, 0]
    assert [frame_numbers(clip) for clip in sample.clips] == (
        3 * [[0, 3, 6, 9]] + 3 * [[38, 41, 44, 47]]
    )
    for clip in sample.clips:
        assert clip.video.shape == (3, 4, 32, 32)
        assert clip.video.dtype == torch.uint8
        assert (clip.label.dtype, clip.label.ndim, clip.video_id) == (torch.int64, 0, 0)
    assert sample.failures == ()


def test_a_sample_is_a_function_of_seed_epoch_and_video(video_file: VideoFactory):
    paths = [video_file("a.mp4"), video_file("b.mp4")]
    assert same(dataset(paths, seed=5)[3, 1], dataset(paths, seed=5)[3, 1])
    drawn = {
        (seed, epoch, video): frame_numbers(dataset(paths, seed=seed)[epoch, video].clips[0])[0]
        for seed in range(3)
        for epoch in range(3)
        for video in range(2)
    }
    assert len(set(drawn.values())) > 8
    entropy = np.random.default_rng([2, 1, 0])
    assert drawn[2, 1, 0] == entropy.integers(48 - 9)


def test_the_replacement_of_an_unreadable_video_is_deterministic(
    video_file: VideoFactory, tmp_path: Path
):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"")
    paths = [bad, *(video_file(f"{i}.mp4") for i in range(5))]
    chosen = set()
    for epoch in range(12):
        sample = dataset(paths, replacements=10)[epoch, 0]
        assert same(sample, dataset(paths, replacements=10)[epoch, 0])
        (clip,) = sample.clips
        assert clip.label.item() == clip.video_id != 0
        assert sample.failures
        assert set(sample.failures) == {
            Failure(str(bad), "Invalid data found when processing input")
        }
        chosen.add(clip.video_id)
    assert len(chosen) > 2


def test_copies_are_independent_samples_from_one_reading(video_file: VideoFactory):
    path, opened = video_file(), []

    def open_once(path: Path, file: BinaryIO | None = None, **facts) -> PyAVReader:
        opened.append(path)
        return PyAVReader(path, file, **facts)

    index = VideoIndex([path], [0], ("0",))
    options = {"seed": 5, "replacements": 0}
    three = VideoDataset(index, RANDOM, JITTER, open_video=open_once, copies=3, **options)
    single = VideoDataset(index, RANDOM, JITTER, open_video=PyAVReader, **options)
    for copy in range(2):
        sample = three[2, 0, copy]
        for j, clip in enumerate(sample.clips):
            (expected,) = single[2, 0, 3 * copy + j].clips
            assert torch.equal(clip.video, expected.video)
    assert len(opened) == 2
    assert same(single[2, 0, 0], single[2, 0])  # the first copy is the sample of the video
    videos = {clip.video.numpy().tobytes() for q in range(2) for clip in three[2, 0, q].clips}
    assert len(videos) > 3


@pytest.mark.parametrize("fps", [10, 30, 60])
def test_with_a_target_rate_clips_cover_the_same_time_at_every_rate(
    fps: int, video_file: VideoFactory
):
    """At 30 frames per second, 4 frames with a distance of 3 are 0, 0.1, 0.2 and 0.3 s."""
    path = video_file(num_frames=48, fps=fps)
    fixed = FixedClips(SAMPLERS["caffe2"], FOUR, INDEX_RULES["loop"], num_clips=2)
    index = VideoIndex([path], [0], ("0",))
    options = {"open_video": PyAVReader, "seed": 0, "replacements": 0}
    data = VideoDataset(index, fixed, WHOLE, target_fps=30.0, **options)
    distance = fps // 10
    expected = [[start + distance * i for i in range(4)] for start in (0, 24)]
    assert [frame_numbers(clip) for clip in data[0, 0].clips] == expected
    plain = VideoDataset(index, fixed, WHOLE, **options)
    assert frame_numbers(plain[0, 0].clips[0]) == [0, 3, 6, 9]


@pytest.mark.parametrize(("rate", "target"), [(None, 30.0), (25.0, None), (30.0, 30.0)])
def test_without_a_rate_or_a_target_the_sampler_stays(rate: float | None, target: float | None):
    assert at_rate(RANDOM, rate, target) is RANDOM


def test_a_video_that_is_known_to_fail_is_not_opened(video_file: VideoFactory, tmp_path: Path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"")
    paths = [bad, video_file("a.mp4"), video_file("b.mp4")]
    data = dataset(paths, replacements=10)
    for epoch in range(8):
        expected = data[epoch, 0]
        attempt = len(expected.failures)
        bad.unlink()
        skipped = data[epoch, 0, 0, attempt]
        bad.write_bytes(b"")
        assert skipped.failures == attempt * (Failure(str(bad), KNOWN),)
        assert same(expected, skipped._replace(failures=expected.failures))


@pytest.mark.parametrize("replacements", [0, 3])
def test_a_sample_has_no_clips_if_no_video_can_be_read(replacements: int, tmp_path: Path):
    paths = [tmp_path / f"{i}.mp4" for i in range(3)]  # never written
    sample = dataset(paths, replacements=replacements)[0, 1]
    assert sample.clips == ()
    assert len(sample.failures) == 1 + replacements
    assert sample.failures[0] == Failure(str(paths[1]), "No such file or directory")


def test_a_wrong_frame_count_is_corrected_and_sampled_again(
    video_file: VideoFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The declared times belong to no frame, so the reader counts the frames."""
    path = video_file(num_frames=20)
    declared_index = PyAVReader._declared_index

    def wrong_index(reader: PyAVReader) -> object:
        index = declared_index(reader)
        assert index is not None
        times = [index.times[0], *(t + 1 for t in index.times[1:]), 10**9]
        positions = {time: place for place, time in enumerate(times)}
        return index._replace(times=times, positions=positions)

    monkeypatch.setattr(PyAVReader, "_declared_index", wrong_index)
    fixed = FixedClips(SAMPLERS["dense"], FOUR, INDEX_RULES["loop"], num_clips=2)
    sample = dataset([path], clip_sampler=fixed, transform=WHOLE)[0, 0]
    assert [frame_numbers(clip) for clip in sample.clips] == [[0, 3, 6, 9], [10, 13, 16, 19]]
    assert sample.failures == ()


def test_collate_stacks_views_and_keeps_failures():
    clips = [Clip(torch.full((3, 2, 4, 4), i), torch.tensor(i % 2), i) for i in range(3)]
    failure = Failure("a.mp4", "cause")
    batch = collate(
        [Sample((clips[0], clips[1]), ()), Sample((), (failure,)), Sample((clips[2],), ())]
    )
    assert batch.video.shape == (3, 3, 2, 4, 4)
    assert batch.label.tolist() == [0, 1, 0]
    assert batch.video_id.tolist() == [0, 1, 2]
    assert batch.failures == (failure,)
    assert collate([Sample((), (failure,))]).video.shape[0] == 0
