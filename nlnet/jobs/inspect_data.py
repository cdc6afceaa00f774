"""A picture of the clips that the network receives."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from torch import Tensor

from nlnet.checks import at_least
from nlnet.clip import ClipBatch
from nlnet.config import InspectConfig
from nlnet.data.build import build_eval_loader, build_train_loader
from nlnet.data.index.video_index import VideoIndex
from nlnet.errors import UsageError
from nlnet.report.contact_sheet import SheetRow, write_contact_sheet

LARGEST_SHARES = 3  # classes of a label that a caption names


def inspect_data(run: InspectConfig, out_dir: Path) -> Path:
    """Write a contact sheet of the first clips of a split, and return its path.

    Raises UserError if the data or the settings have a mistake.
    """
    at_least("clips", run.clips, 1)
    run.data.num_workers = 0  # few clips; the start of workers takes seconds
    index, batches = _batches(run)
    rows = [row for batch in batches for row in sheet_rows(run.data.root, index, batch)]
    path = out_dir / "clips.png" if run.out is None else Path(run.out)
    write_contact_sheet(path, rows)
    return path


def _batches(run: InspectConfig) -> tuple[VideoIndex, Iterator[ClipBatch]]:
    """The index of the split, and batches until there are enough clips."""
    data = run.data
    if run.split == "train":
        loader = build_train_loader(
            data, seed=run.seed, accumulate=run.trainer.accumulate, rank=0, world_size=1
        )
        return loader.index, _until(run.clips, loader.at(0))
    if run.split not in ("val", "test"):
        raise UsageError(f"split={run.split} is unknown; choose one of: train, val, test")
    is_val = run.split == "val"
    held_out = build_eval_loader(
        data,
        data.val if is_val else data.test,
        data.val_views if is_val else data.test_views,
        rank=0,
        world_size=1,
        key=f"data.{run.split}_views",
    )
    return held_out.index, _until(run.clips, iter(held_out))


def _until(count: int, batches: Iterator[ClipBatch]) -> Iterator[ClipBatch]:
    for batch in batches:
        yield batch._replace(
            video=batch.video[:count], label=batch.label[:count], video_id=batch.video_id[:count]
        )
        count -= len(batch.label)
        if count <= 0:
            return


def sheet_rows(data_root: str, index: VideoIndex, batch: ClipBatch) -> Iterator[SheetRow]:
    """The rows of a contact sheet for a batch: each clip, its label and its file."""
    for video, label, row in zip(batch.video, batch.label, batch.video_id.tolist(), strict=True):
        path, root = index.path(row), Path(data_root)
        name = path.relative_to(root) if path.is_relative_to(root) else path
        yield SheetRow(video, f"{describe_label(label, index.class_names)}   {name}")


def describe_label(label: Tensor, class_names: Sequence[str]) -> str:
    """The name of the class (), or the names and shares of the largest classes (K,)."""
    if label.ndim == 0:
        return class_names[int(label)]
    order = label.argsort(descending=True, stable=True)
    shown = [k for k in islice(order.tolist(), LARGEST_SHARES) if label[k] > 0]
    if not shown:
        return "no label"
    more = " ..." if int((label > 0).sum()) > len(shown) else ""
    shares = [
        class_names[k] if label[k] == 1 else f"{class_names[k]} {100 * float(label[k]):.0f} %"
        for k in shown
    ]
    return " + ".join(shares) + more
