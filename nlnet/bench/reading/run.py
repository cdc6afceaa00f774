"""bench=data: from files to batches, compared with the readers of pytorchvideo and torchcodec.

The videos are generated, so that everyone measures the same. All readers read the same frames of
the same files in loaders with the same number of workers, in turn. Times of the workers are
processor times, which other load on the machine changes less than the time on the clock.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import numpy as np

from nlnet.bench.reading.checks import largest_differences
from nlnet.bench.reading.clips import PROTOCOL, ClipKey, Clips, build_clip_loader
from nlnet.bench.reading.plan import FULL, LONG, QUICK, ReadingPlan, ReadingRow
from nlnet.bench.reading.prepared import Files, prepare_files
from nlnet.bench.reading.readers import Read, find_readers
from nlnet.bench.reading.resizing import resize_share
from nlnet.bench.reading.rounds import measure_loaders
from nlnet.bench.reading.tables import (
    OURS,
    PEER,
    PREPARED,
    SHARDS,
    Line,
    Results,
    reading_lines,
    reading_table,
    resize_line,
    training_line,
)
from nlnet.bench.reading.training import measure_training, write_list
from nlnet.bench.reading.videos import bit_rate, write_videos
from nlnet.bench.report import Report
from nlnet.config import BenchmarkConfig
from nlnet.data.decoding.opening import open_video
from nlnet.data.index.video_index import VideoIndex
from nlnet.runs.logger import progress_bar

BATCH = 4  # clips of a batch; test views come video by video


def measure_reading(run: BenchmarkConfig) -> Report:
    """Measure the readers, the transform and training from files."""
    return measure_reading_plan(QUICK if run.quick else FULL)


def measure_reading_plan(plan: ReadingPlan) -> Report:
    """Measure a plan. Raises RuntimeError if the readers do not give the same frames."""
    load = [os.getloadavg()[0]]
    with TemporaryDirectory() as folder:
        root = Path(folder)
        originals = write_videos(root / "original", plan.videos, plan.num_frames)
        files = prepare_files(originals, root / "prepared")
        paths = {name: _paths(files[name]) for name in ("original", "prepared")}
        rates = {name: mean(map(bit_rate, found)) / 1e3 for name, found in paths.items()}
        readers, remark = find_readers()
        differences = _compare(plan, readers, files)
        rows = [
            (row, _measure_row(plan, row, readers, files))
            for row in progress_bar(plan.rows, "reading")
        ]
        lines = [line for row, results in rows for line in reading_lines(row, results)]
        lines.append(_resize(plan, originals[0]))
        write_list(root / "prepared", paths["prepared"])
        for name, steps in progress_bar(plan.training.items(), "training"):
            result = measure_training(name, root / "prepared", steps)
            lines.append(training_line(result, "prepared"))
    load.append(os.getloadavg()[0])
    text = [
        f"{plan.videos} generated videos of {plan.num_frames / 30:g} s, 340 x 256, H.264: "
        + ", ".join(f"{name} {rate:.0f} kbit/s" for name, rate in rates.items())
        + f"; {plan.rounds} rounds; load of the machine {load[0]:.1f} to {load[1]:.1f}. CPU ms: "
        "processor time of the workers for a clip, or for a video of the 30 views (median). per s: "
        "clips or videos, on the clock. rounds: the smallest and the largest ratio.\n",
        reading_table(lines),
        "\nMean difference from what nlnet reads, in levels of 255: "
        + ", ".join(f"{name} {value:.2f}" for name, value in differences.items())
        + ".",
    ]
    if remark is not None:
        text.append(remark)
    numbers = {
        "load": load,
        "kbits": rates,
        "differences": differences,
        "lines": [line._asdict() for line in lines],
        "rounds": [
            {"row": row.name, "workers": row.workers, "reader": key, **measured._asdict()}
            for row, results in rows
            for key, measured in results.items()
        ],
    }
    return Report("\n".join(text), numbers)


def _compare(plan: ReadingPlan, readers: Mapping[str, Read], files: Files) -> dict[str, float]:
    """The differences of the readers at the start, in the middle and at the end of a video."""
    shape = max((row.shape for row in plan.rows), key=lambda shape: shape.span)
    clips = PROTOCOL.test(shape, plan.num_frames, 3)
    return largest_differences(readers, files, clips, crop_size=plan.crop_size)


def _paths(index: VideoIndex) -> list[Path]:
    return [index.path(i) for i in range(len(index))]


def _measure_row(
    plan: ReadingPlan, row: ReadingRow, readers: Mapping[str, Read], files: Files
) -> Results:
    """Let all readers read the original files, and nlnet the other forms, too."""
    keys = [ClipKey(i % plan.videos, i // plan.videos) for i in range(row.samples)]
    choices = [OURS, PEER, *((name, "original") for name in readers), PREPARED, SHARDS]
    loaders = {}
    for name, kind in dict.fromkeys(choices):
        clips = Clips(
            files[kind], plan.num_frames, readers[name], row.work, row.shape, row.num_clips
        )
        size = BATCH if row.num_clips is None else 1
        loaders[name, kind] = build_clip_loader(
            clips, keys, batch_size=size, num_workers=row.workers
        )
    return measure_loaders(loaders, samples=row.samples, rounds=plan.rounds)


def _resize(plan: ReadingPlan, path: Path) -> Line:
    """The transform of a long clip."""
    with open_video(path) as video:
        frames = video.read(np.arange(min(LONG.num_frames, video.num_frames)))
    seconds, share = resize_share(frames, plan.crop_size, plan.rounds)
    return resize_line(len(frames), plan.crop_size, seconds, share)
