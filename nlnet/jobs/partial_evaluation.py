"""Go on with an evaluation that was killed, from its partial results to the same number."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch

import nlnet
from nlnet.cli.dotted_keys import flatten
from nlnet.cli.folders import FREE_KEYS
from nlnet.clip import ClipBatch
from nlnet.config import RunConfig
from nlnet.data.loader import EvalLoader
from nlnet.distributed.ranks import gather_objects, on_main, rank, world_size
from nlnet.jobs.data_changes import list_videos
from nlnet.runs.partial import PartialResults, remove_partial
from nlnet.trainer.metrics import VideoScores
from nlnet.weights.files import WeightFile

COUNTING_KEYS = ("trainer.fold_norms",)  # of FREE_KEYS, those that change the last bits of scores


def open_partial(
    run: RunConfig, out_dir: Path, weights: WeightFile, loader: EvalLoader, device: torch.device
) -> PartialResults:
    """The partial results that belong to an evaluation; those of another one are removed."""

    def find_key() -> str:
        key = _key(run, weights, loader, device)
        remove_partial(out_dir, except_key=key)
        return key

    return PartialResults(out_dir, on_main(find_key), rank())


def restore(partial: PartialResults, loader: EvalLoader, scores: VideoScores) -> str | None:
    """Take the scores of an earlier attempt, and skip its batches; a line for the user."""
    parts = partial.read()
    for part in parts:
        scores.put(part)
    loader.skip(partial.batches)
    videos = sum(gather_objects(sum(len(part.video) + len(part.failures) for part in parts)))
    if not videos:
        return None
    return f"goes on after {videos} of {len(loader.index)} videos, which an earlier attempt scored"


def keep_parts(
    batches: Iterable[ClipBatch], scores: VideoScores, partial: PartialResults
) -> Iterator[ClipBatch]:
    """Pass batches on; write the scores of those before, which the caller has added by then."""
    for done, batch in enumerate(batches, start=partial.batches):
        if partial.is_due and done > partial.batches:
            partial.write(scores.take(), done)
        yield batch


def _key(run: RunConfig, weights: WeightFile, loader: EvalLoader, device: torch.device) -> str:
    """A digest of all that the scores, and their division into parts, depend on."""
    settings = {
        name: value
        for name, value in flatten(asdict(run)).items()
        if not name.startswith(FREE_KEYS) or name in COUNTING_KEYS
    }
    facts = {
        "settings": {name: repr(value) for name, value in settings.items() if name != "weights"},
        "weights": _digest(weights),
        "videos": asdict(list_videos(loader.index, run.data.root).facts()),
        "ranks": world_size(),
        "device": device.type,
        "versions": [nlnet.__version__, str(torch.__version__)],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _digest(weights: WeightFile) -> str:
    """The SHA-256 of names, shapes and values of the tensors."""
    state = hashlib.sha256()
    for name, value in sorted(weights.state.items()):
        state.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        state.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()
