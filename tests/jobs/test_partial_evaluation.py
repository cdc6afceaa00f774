"""An evaluation that is killed goes on from its partial results to the same number."""

import time
from pathlib import Path

import pytest
import torch

from nlnet.clip import ClipBatch, Failure
from nlnet.jobs.partial_evaluation import keep_parts
from nlnet.runs.partial import PartialResults
from nlnet.trainer.metrics import VideoScores

BATCHES, CLASSES, VIEWS = 9, 4, 3


def batches(first: int = 0) -> list[ClipBatch]:
    """One batch for each video; the fourth video cannot be read."""
    found = []
    for video in range(first, BATCHES):
        bad = (Failure("3.mp4", "empty"),) if video == 3 else ()
        ids = torch.full((0 if bad else VIEWS,), video)
        found.append(ClipBatch(torch.empty(len(ids)), ids, ids, bad))
    return found


def scores_of(stream, scores: VideoScores, limit: int = BATCHES) -> None:
    """Score batches as a network that knows the number of the video; stop after `limit`."""
    for batch in stream:
        scores.fail(batch.failures)
        if len(batch.video_id):
            generator = torch.Generator().manual_seed(int(batch.video_id[0]))
            views = torch.rand(VIEWS, CLASSES, generator=generator)
            scores.add(views.softmax(1), batch.video_id)
        if (limit := limit - 1) == 0:
            return


def empty() -> VideoScores:
    return VideoScores(torch.arange(BATCHES) % CLASSES, CLASSES, keep_views=True)


@pytest.mark.parametrize("stopped", range(1, BATCHES + 1))
def test_the_bits_are_those_of_an_undisturbed_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: int
):
    """A part follows every second batch."""
    whole = empty()
    scores_of(batches(), whole)
    whole.gather()
    ticks = iter(range(0, 1000))
    monkeypatch.setattr(time, "monotonic", lambda: 0.7 * next(ticks))
    first = PartialResults(tmp_path, "k" * 64, 0)
    scores = empty()
    scores_of(keep_parts(batches(), scores, first), scores, stopped)
    partial, scores = PartialResults(tmp_path, "k" * 64, 0), empty()
    for part in partial.read():
        scores.put(part)
    assert stopped < 3 or 0 < partial.batches < stopped
    scores_of(keep_parts(batches(partial.batches), scores, partial), scores)
    scores.gather()
    assert torch.equal(scores.totals, whole.totals)
    assert torch.equal(scores.num_views, whole.num_views)
    assert scores.views is not None and whole.views is not None
    assert all(torch.equal(a, b) for a, b in zip(scores.views, whole.views, strict=True))
    assert scores.failures == whole.failures
    assert scores.metrics() == whole.metrics()
