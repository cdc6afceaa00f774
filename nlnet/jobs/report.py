"""What tools/report.py does: the report of evaluated runs, with the attention of their networks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from nlnet.checks import require_libraries, section
from nlnet.config import RunConfig
from nlnet.distributed.ranks import pick_device
from nlnet.errors import UserError
from nlnet.numerics.denormals import flushed_denormals
from nlnet.recognizer.attention import AUTO, attend, attention_blocks
from nlnet.recognizer.build import build_recognizer
from nlnet.recognizer.methods import GRADCAM, ROWS
from nlnet.recognizer.recognizer import Recognizer
from nlnet.report.attention import ShownAttention, score_videos
from nlnet.report.runs import TRAININGS, EvaluatedRun, find_beside
from nlnet.weights.files import read_weight_file
from nlnet.weights.public import locate, split_word

WHERE = "in the center crop of the middle clip"


@dataclass(frozen=True)
class ReportOptions:
    """What a report contains, and where it is written."""

    out: Path | None  # None is report.html in the folder of the first evaluation
    data_root: Path | None  # where the videos are now; None: where they were
    attention: bool  # show the attention of wrong videos; it needs the checkpoint
    score_videos: int  # number of videos for the deletion scores


@flushed_denormals()
def report(folders: Sequence[Path], options: ReportOptions) -> None:
    """Write the report, and print the metrics of each run and what the report cannot show.

    Raises:
        UserError: a library is not installed, a run has no evaluation, or a file is damaged or
            cannot be written.
    """
    require_libraries("report", ["jinja2", "matplotlib"])
    from nlnet.report.page import write_report

    show = partial(attention_of, count=options.score_videos) if options.attention else no_attention
    out, parts = write_report(folders, options.out, attention_of=show, data_root=options.data_root)
    for part in parts:
        print(part.summary)
        if part.attention is not None and part.attention.recognizer is None:
            print(f"   {part.attention.note}")
        if part.gone:
            print(f"   {part.gone}")
    print(out)


def no_attention(run: EvaluatedRun) -> None:
    """The attention of a run in a report that does not show it."""


def attention_of(run: EvaluatedRun, count: int) -> ShownAttention:
    """The attention of the network that was evaluated, and its deletion scores on `count` videos.

    If the checkpoint cannot be read any more, the result says so.
    """
    try:
        recognizer = _load(run)
    except UserError as error:
        return ShownAttention(f"No attention is shown: {error}")
    method, note = _method(recognizer, run.config)
    videos = [run.file(i) for i in (run.scores.num_views > 0).nonzero()[0].tolist()]
    scores = score_videos(recognizer, videos, count, method=method)
    return ShownAttention(note, recognizer, method, scores)


def _load(run: EvaluatedRun) -> Recognizer:
    """The recognizer that was evaluated; raises UserError if its weights cannot be read."""
    source = run.config.weights
    if source is None:
        raise UserError(f"{run.folder}: its config.yaml names no weights; run tools/eval.py again")
    file, word = split_word(source)
    weights = read_weight_file(locate(str(_checkpoint(file, run.folder))), key=word)
    with section(""):
        device = pick_device("auto")
    names = run.scores.class_names
    return build_recognizer(run.config, weights, names, device, source=source)


def _checkpoint(source: str, evaluation: Path) -> Path | str:
    """The file of the weights, also of a run that was moved; else the source itself."""
    found = find_beside(Path(source), evaluation)
    if found.exists():
        return found
    moved = [evaluation / place / Path(source).name for place in TRAININGS]
    return next((path for path in moved if path.is_file()), source)


def _method(recognizer: Recognizer, run: RunConfig) -> tuple[str, str]:
    """The method that works for a network, and a sentence that describes it."""
    cause = "the network has no non-local block"
    if attention_blocks(recognizer.model):
        size = run.data.test_views.crop_size
        clip = torch.zeros(1, 3, run.data.clip.num_frames, size, size, dtype=torch.uint8)
        try:
            attend(recognizer.model, clip.to(recognizer.device), query=AUTO, block=None)
        except UserError as error:
            cause = str(error).partition(";")[0]
        else:
            return ROWS, (
                "Below the preview of each wrong video: what the non-local blocks attend to, "
                f"{WHERE}. The query (the cross in its frame) has the most concentrated row."
            )
    return GRADCAM, (
        f"Below the preview of each wrong video: Grad-CAM of the predicted class, {WHERE}: {cause}."
    )
