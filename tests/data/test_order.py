from collections import Counter
from itertools import chain

import numpy as np
import pytest

from nlnet.data.order import EpochOrder, EvaluationOrder, SampleKey, stand_in


def micro_batches(
    num_videos: int,
    batch_size: int,
    *,
    accumulate=1,
    rank=0,
    world_size=1,
    epoch=0,
    step=0,
    **options,
) -> list[list[SampleKey]]:
    order = EpochOrder(
        num_videos,
        seed=3,
        batch_size=batch_size,
        accumulate=accumulate,
        rank=rank,
        world_size=world_size,
        **options,
    )
    order.set_position(epoch, step)
    keys = list(order)
    assert len(order) == len(keys)
    size = batch_size // (accumulate * world_size)
    return [keys[i : i + size] for i in range(0, len(keys), size)]


def global_batches(
    num_videos: int, batch_size: int, accumulate: int, world_size: int, **options
) -> list:
    """The keys of all ranks together at each step."""
    ranks = [
        micro_batches(
            num_videos,
            batch_size,
            accumulate=accumulate,
            rank=rank,
            world_size=world_size,
            **options,
        )
        for rank in range(world_size)
    ]
    steps = len(ranks[0]) // accumulate
    return [
        sorted(
            key
            for batches in ranks
            for micro in batches[step * accumulate : (step + 1) * accumulate]
            for key in micro
        )
        for step in range(steps)
    ]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_global_batches_depend_on_neither_ranks_nor_accumulation(world_size: int, accumulate: int):
    expected = [sorted(batch) for batch in micro_batches(40, 12)]
    assert global_batches(40, 12, accumulate, world_size) == expected
    assert len(expected) == 3


def test_two_ranks_make_the_micro_batches_of_two_accumulation_steps():
    ranks = [micro_batches(40, 8, rank=rank, world_size=2) for rank in range(2)]
    interleaved = [batch for pair in zip(*ranks, strict=True) for batch in pair]
    assert interleaved == micro_batches(40, 8, accumulate=2)


def test_an_epoch_has_each_video_at_most_once_and_epochs_differ():
    first = list(chain(*micro_batches(41, 8, epoch=0)))
    second = list(chain(*micro_batches(41, 8, epoch=1)))
    assert len(set(first)) == len(first) == 40
    assert {epoch for epoch, *_ in second} == {1}
    assert [video for _, video, *_ in first] != [video for _, video, *_ in second]
    shown = [{video for _, video, *_ in chain(*micro_batches(41, 8, epoch=e))} for e in range(9)]
    assert set.union(*shown) == set(range(41))


@pytest.mark.parametrize("step", range(6))
def test_a_later_start_gives_the_rest_of_the_epoch(step: int):
    whole = micro_batches(40, 8, accumulate=2, rank=1, world_size=2, epoch=4)
    tail = micro_batches(40, 8, accumulate=2, rank=1, world_size=2, epoch=4, step=step)
    assert tail == whole[2 * step :]


def test_a_small_data_set_is_repeated_to_fill_a_batch():
    (batch,) = micro_batches(3, 8)
    videos = [video for _, video, *_ in batch]
    assert videos[:3] * 2 + videos[:2] == videos
    assert set(videos) == {0, 1, 2}


@pytest.mark.parametrize("world_size", range(1, 5))
@pytest.mark.parametrize("num_videos", range(1, 10))
def test_evaluation_has_every_video_once(num_videos: int, world_size: int):
    shares = [
        list(EvaluationOrder(num_videos, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert sorted(chain(*shares)) == [SampleKey(0, video) for video in range(num_videos)]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


CLASSES = np.repeat([0, 1, 2, 3], [60, 25, 10, 5])  # 100 videos of 4 classes
BALANCED = 1 / np.bincount(CLASSES)[CLASSES]
WEIGHTS = {
    "balanced": BALANCED,
    "half": BALANCED**0.5,
    "random": np.random.default_rng(0).random(100),
    "some are 0": np.arange(100) % 3 * 1.0,
    "one": np.arange(100) == 7,
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_video_comes_as_often_as_its_weight_says_rounded_down_or_up(name: str):
    weights = WEIGHTS[name]
    for epoch in range(5):
        keys = list(chain(*micro_batches(100, 8, epoch=epoch, weights=weights, groups=CLASSES)))
        assert len(keys) == 96  # as many as without weights
        counts = np.bincount([key.video for key in keys], minlength=100)
        assert np.abs(counts - 96 * weights / weights.sum()).max() < 1 + 1e-9
        classes = np.bincount(CLASSES, counts, minlength=4)
        expected = 96 * np.bincount(CLASSES, weights, minlength=4) / weights.sum()
        assert np.abs(classes - expected).max() < 1 + 1e-9
        assert len(set(keys)) == 96  # each time with another copy number
        for video, copies in Counter(key.video for key in keys).items():
            assert sorted(key.copy for key in keys if key.video == video) == [*range(copies)]


def test_over_many_epochs_each_video_has_its_share():
    weights, total = WEIGHTS["random"], np.zeros(100)
    for epoch in range(300):
        keys = chain(*micro_batches(100, 8, epoch=epoch, weights=weights, groups=CLASSES))
        total += np.bincount([key.video for key in keys], minlength=100)
    assert np.abs(total / 300 - 96 * weights / weights.sum()).max() < 0.12


def test_equal_weights_give_each_video_at_most_once():
    for num_videos in (40, 41, 47):
        keys = list(chain(*micro_batches(num_videos, 8, weights=np.full(num_videos, 0.3))))
        assert len({key.video for key in keys}) == len(keys) == 40
        assert {key.copy for key in keys} == {0}


def test_a_weighted_epoch_is_shuffled():
    keys = list(chain(*micro_batches(100, 8, weights=BALANCED, groups=CLASSES)))
    batches = [Counter(CLASSES[key.video] for key in keys[i : i + 24]) for i in range(0, 96, 24)]
    assert all(min(batch[k] for k in range(4)) >= 1 for batch in batches)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_weighted_global_batches_depend_on_neither_ranks_nor_accumulation(
    world_size: int, accumulate: int
):
    options = {"weights": BALANCED, "groups": CLASSES}
    expected = [sorted(batch) for batch in micro_batches(100, 12, **options)]
    assert global_batches(100, 12, accumulate, world_size, **options) == expected


@pytest.mark.parametrize("step", range(6))
def test_a_later_start_gives_the_rest_of_a_weighted_epoch(step: int):
    options = {"rank": 1, "world_size": 2, "epoch": 4, "weights": BALANCED, "groups": CLASSES}
    assert micro_batches(100, 8, step=step, **options) == micro_batches(100, 8, **options)[step:]


def test_keys_begin_with_the_first_attempt_that_is_not_known_to_fail():
    order = EpochOrder(
        20, seed=3, batch_size=20, accumulate=1, rank=0, world_size=1, replacements=4
    )
    plain = list(order)
    broken = {1, 5, 6, 7}
    order.set_position(0, 0, broken.__contains__)
    for key, before in zip(order, plain, strict=True):
        assert key[:3] == before[:3]
        videos = [stand_in(3, key, attempt, 20) for attempt in range(key.attempt + 1)]
        assert videos[0] == key.video
        assert [video in broken for video in videos] == [True] * key.attempt + [False]
    order.set_position(0, 0, lambda video: True)
    assert {key.attempt for key in order} == {5}  # none is left to try
