import pickle
from fractions import Fraction

import numpy as np
import pytest

from nlnet.data.clip_sampling import (
    INDEX_RULES,
    SAMPLERS,
    ClipShape,
    FixedClips,
    RandomClip,
    choose_protocol,
)
from nlnet.errors import ArgumentError


def rule_of(name: str, default: str = "loop") -> str:
    return SAMPLERS[name].short or default


def random_clip(name: str, num_frames: int, frame_stride: int, short: str = "loop") -> RandomClip:
    protocol, rule = choose_protocol(name, rule_of(name, short))
    return RandomClip(protocol, ClipShape(num_frames, frame_stride), rule)


def fixed_clips(
    name: str, num_frames: int, frame_stride: int, num_clips: int, short: str = "loop"
) -> FixedClips:
    protocol, rule = choose_protocol(name, rule_of(name, short))
    return FixedClips(protocol, ClipShape(num_frames, frame_stride), rule, num_clips)


def clips(sampler: RandomClip | FixedClips, length: int, seed: int = 0) -> np.ndarray:
    return np.stack(sampler(length, np.random.default_rng(seed)))


@pytest.mark.parametrize("short", INDEX_RULES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_clips_are_inside_a_video_of_any_length(name: str, short: str):
    for length in (1, 2, 7, 8, 57, 63, 64, 65, 300):
        for shape in ((8, 8), (1, 1), (32, 2)):
            for sampler in (random_clip(name, *shape, short), fixed_clips(name, *shape, 10, short)):
                drawn = clips(sampler, length)
                assert drawn.shape == (len(drawn), shape[0])
                assert drawn.dtype == np.int64
                assert drawn.min() >= 0
                assert drawn.max() < length


@pytest.mark.parametrize("name", SAMPLERS)
def test_random_clips_depend_on_the_generator_alone(name: str):
    sampler = pickle.loads(pickle.dumps(random_clip(name, 8, 4)))
    assert np.array_equal(clips(sampler, 300, 1), clips(random_clip(name, 8, 4), 300, 1))
    assert len({clips(sampler, 300, seed).tobytes() for seed in range(20)}) > 10
    fixed = fixed_clips(name, 8, 4, 3)
    assert np.array_equal(clips(fixed, 300, 1), clips(fixed, 300, 2))


@pytest.mark.parametrize(("name", "last_start"), [("dense", 43), ("caffe2", 36), ("mmaction2", 36)])
def test_exactly_the_possible_starts_are_drawn(name: str, last_start: int):
    """100 frames, 8x8: the dense clip covers 57 frames, those of the code bases cover 64."""
    sampler = random_clip(name, 8, 8)
    drawn = np.concatenate([clips(sampler, 100, seed) for seed in range(1000)])
    assert set(drawn[:, 0]) == set(range(last_start + 1))
    assert (np.diff(drawn, axis=1) == 8).all()


def test_segments_take_one_frame_of_each_segment():
    sampler = random_clip("segments", 4, 1)
    drawn = np.concatenate([clips(sampler, 20, seed) for seed in range(300)])
    for segment in range(4):
        assert set(drawn[:, segment]) == set(range(5 * segment, 5 * segment + 5))
    assert clips(fixed_clips("segments", 4, 1, 1), 20).tolist() == [[2, 7, 12, 17]]
    assert (
        clips(fixed_clips("segments", 4, 1, 5), 20).T.tolist()
        == np.arange(20).reshape(4, 5).tolist()
    )
    assert clips(fixed_clips("segments", 8, 1, 1), 4).tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]]


def starts(name: str, length: int = 300, span: int = 64) -> list[int]:
    return clips(fixed_clips(name, span, 1, 10), length)[:, 0].tolist()


def test_ten_clips_have_their_published_starts():
    """300 frames, span 64: each code base has its own starts."""
    assert starts("caffe2") == list(range(0, 300, 30))
    assert starts("slowfast") == [int(236 * j / 10) for j in range(10)]
    assert starts("slowfast")[-1] == 212
    assert starts("mmaction2") == [round(236 * j / 9) for j in range(10)]
    assert starts("mmaction2")[-1] == starts("dense")[-1] == 236
    # frames shown from (10 s - clip) j / 10 on, at 30 frames a second: 0 to 7.08 s
    seconds = [(10 - Fraction(64, 30)) * j / 10 for j in range(10)]
    assert float(seconds[-1]) == pytest.approx(7.08)
    assert starts("pytorchvideo") == [
        next(i for i in range(300) if Fraction(i, 30) >= second) for second in seconds
    ]


def test_caffe2_clips_continue_at_the_beginning():
    for length in range(1, 400):
        drawn = clips(fixed_clips("caffe2", 32, 2, 10), length)
        for j in range(10):
            expected = [(int(length / 10 * j) + 2 * i) % length for i in range(32)]
            assert drawn[j].tolist() == expected


def test_slowfast_frames_are_nine_apart_and_held_at_the_end():
    drawn = clips(fixed_clips("slowfast", 8, 8, 10), 300)
    assert drawn[0].tolist() == [0, 9, 18, 27, 36, 45, 54, 63]
    assert drawn[1][0] == 23  # 23.6, truncated
    assert clips(fixed_clips("slowfast", 8, 8, 1), 30).tolist() == [[0, 9, 18, 27, 29, 29, 29, 29]]


def test_mmaction2_last_clip_reaches_the_end():
    drawn = clips(fixed_clips("mmaction2", 32, 2, 10), 300)
    assert drawn[-1][-1] == 299
    assert clips(fixed_clips("mmaction2", 8, 8, 1), 300)[0][0] == (300 - 57) // 2


def test_pytorchvideo_spreads_over_the_existing_frames():
    assert clips(fixed_clips("pytorchvideo", 8, 8, 1), 300)[0].tolist() == list(range(0, 64, 9))
    assert clips(fixed_clips("pytorchvideo", 4, 8, 1), 10)[0].tolist() == [0, 3, 6, 9]


def test_short_videos_are_looped_or_held():
    looped = clips(fixed_clips("dense", 6, 2, 1, "loop"), 5)[0]
    held = clips(fixed_clips("dense", 6, 2, 1, "hold"), 5)[0]
    assert looped.tolist() == [0, 2, 4, 1, 3, 0]
    assert held.tolist() == [0, 2, 4, 4, 4, 4]


def test_names_are_checked():
    with pytest.raises(ArgumentError, match=r"^sampler=slow .*dense, "):
        choose_protocol("slow", "loop")
    with pytest.raises(ArgumentError, match=r"^short=clamp .*loop, hold"):
        choose_protocol("dense", "clamp")
    for name, protocol in SAMPLERS.items():
        for short in INDEX_RULES:
            if protocol.short not in (None, short):
                with pytest.raises(
                    ArgumentError, match=f"^short={short} .*choose {protocol.short}"
                ):
                    choose_protocol(name, short)
