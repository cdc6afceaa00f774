"""Batches that are copied to the device while the step before them is computed."""

from collections.abc import Iterator

import pytest
import torch

from nlnet.clip import ClipBatch, Failure
from nlnet.errors import UserError
from nlnet.trainer.ahead import CopyAhead, copied_ahead

CPU = torch.device("cpu")


def batches(count: int, side: int = 8) -> list[ClipBatch]:
    generator = torch.Generator().manual_seed(0)
    shape = (2, 3, 4, side, side)
    return [
        ClipBatch(
            torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
            torch.tensor([i, 1]),
            torch.tensor([i, 2]),
            (Failure(f"{i}.mp4", "broken"),),
        )
        for i in range(count)
    ]


class Source:
    """Counts the batches that were asked for, and may end with an error."""

    def __init__(self, batches: list[ClipBatch], error: UserError | None = None) -> None:
        self.asked = 0
        self._batches, self._error = batches, error

    def __iter__(self) -> Iterator[ClipBatch]:
        for batch in self._batches:
            self.asked += 1
            yield batch
        if self._error is not None:
            raise self._error


def test_on_a_cpu_the_batches_are_given_as_they_are():
    made = batches(3)
    source = Source(made)
    for number, batch in enumerate(copied_ahead(source, CPU)):
        assert batch is made[number]
        assert source.asked == number + 1  # none is read ahead


cuda = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def pinned(batch: ClipBatch) -> ClipBatch:
    return batch._replace(
        video=batch.video.pin_memory(),
        label=batch.label.pin_memory(),
        video_id=batch.video_id.pin_memory(),
    )


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=cuda)])
def test_batches_on_the_device_are_equal_and_one_is_read_ahead(device: str):
    made = batches(20, side=64)
    source = Source([pinned(batch) for batch in made])
    for number, batch in enumerate(copied_ahead(source, torch.device(device))):
        assert source.asked == min(number + 2, 20)
        scratch = batch.video.float().sqrt().sum()  # a step that uses the memory
        assert batch.video.is_cuda and batch.failures == made[number].failures
        for found, expected in zip(batch[:3], made[number][:3], strict=True):
            assert torch.equal(found.cpu(), expected)
        assert torch.isfinite(scratch)
    assert number == 19


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=cuda)])
def test_the_next_copy_ends_before_the_step_ends(device: str):
    ahead = CopyAhead([pinned(batch) for batch in batches(2)], torch.device(device))
    next(ahead)
    torch.cuda._sleep(2_000_000_000)  # clock cycles, about a second: the step
    step = torch.cuda.Event()
    step.record()
    ahead.copied.synchronize()
    assert not step.query()
    step.synchronize()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=cuda)])
def test_an_error_comes_where_its_batch_would_be(device: str):
    ahead = copied_ahead(Source(batches(2), UserError("too many")), torch.device(device))
    assert [batch.label[0].item() for batch in (next(ahead), next(ahead))] == [0, 1]
    with pytest.raises(UserError, match="too many"):
        next(ahead)
