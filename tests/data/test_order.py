from itertools import chain

import pytest

from nlnet.data.order import EpochOrder, evaluation_order


def micro_batches(
    num_videos: int, batch_size: int, *, accumulate=1, rank=0, world_size=1, epoch=0, step=0
) -> list[list[tuple[int, int]]]:
    order = EpochOrder(
        num_videos,
        seed=3,
        batch_size=batch_size,
        accumulate=accumulate,
        rank=rank,
        world_size=world_size,
    )
    order.set_position(epoch, step)
    keys = list(order)
    assert len(order) == len(keys)
    size = batch_size // (accumulate * world_size)
    return [keys[i : i + size] for i in range(0, len(keys), size)]


def global_batches(num_videos: int, batch_size: int, accumulate: int, world_size: int) -> list:
    """The keys of all ranks together at each step."""
    ranks = [
        micro_batches(
            num_videos, batch_size, accumulate=accumulate, rank=rank, world_size=world_size
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
    assert {epoch for epoch, _ in second} == {1}
    assert [video for _, video in first] != [video for _, video in second]
    shown = [{video for _, video in chain(*micro_batches(41, 8, epoch=e))} for e in range(9)]
    assert set.union(*shown) == set(range(41))


@pytest.mark.parametrize("step", range(6))
def test_a_later_start_gives_the_rest_of_the_epoch(step: int):
    whole = micro_batches(40, 8, accumulate=2, rank=1, world_size=2, epoch=4)
    tail = micro_batches(40, 8, accumulate=2, rank=1, world_size=2, epoch=4, step=step)
    assert tail == whole[2 * step :]


def test_a_small_data_set_is_repeated_to_fill_a_batch():
    (batch,) = micro_batches(3, 8)
    videos = [video for _, video in batch]
    assert videos[:3] * 2 + videos[:2] == videos
    assert set(videos) == {0, 1, 2}


@pytest.mark.parametrize("world_size", range(1, 5))
@pytest.mark.parametrize("num_videos", range(1, 10))
def test_evaluation_has_every_video_once(num_videos: int, world_size: int):
    shares = [
        evaluation_order(num_videos, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    assert sorted(chain(*shares)) == [(0, video) for video in range(num_videos)]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
