"""The options --resize, --gop, --frames of tools/prepare.py: copies that are fast to read."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import log10
from pathlib import Path
from statistics import fmean

from nlnet.checks import at_least, one_of, within
from nlnet.data.decoding.reader import DecodeError
from nlnet.data.image_encoding import IMAGE_FORMATS
from nlnet.data.index.entries import Entry
from nlnet.data.index.files import video_files
from nlnet.data.index.manifest import OK, VideoFacts
from nlnet.data.prepare.copies import (
    CopyForm,
    CopyTask,
    WriteFailure,
    copy_error,
    copy_video,
    finish_replacement,
    remove_leftovers,
)
from nlnet.data.prepare.data_set import DataSet
from nlnet.data.prepare.processes import Lost, map_in_processes
from nlnet.data.prepare.status import NOT_COPIED
from nlnet.errors import UsageError, UserError
from nlnet.files import cannot_write

GOP, CRF = 16, 20
SAMPLE = 5  # copies that are compared with their originals
PATIENCE = 10  # times the time limit for measuring a file
Facts = Mapping[Path, VideoFacts]
Results = Iterator[tuple[CopyTask, VideoFacts]]


@dataclass(frozen=True)
class CopyOptions:
    """What --resize, --gop, --crf, --frames, --to and --in-place say; None: it was not given."""

    resize: str | None = None
    gop: int | None = None
    crf: int | None = None
    frames: str | None = None
    to: Path | None = None
    in_place: bool = False

    def form(self) -> CopyForm | None:
        """What copies are like; None if there are none. Raises UsageError for a wrong option."""
        if self.resize is None and self.gop is None and self.crf is None and self.frames is None:
            if self.to is not None or self.in_place:
                raise UsageError("--to and --in-place are for --resize, --gop or --frames; add one")
            return None
        if self.in_place == (self.to is not None):
            raise UsageError("give either --to DIR, the folder of the copies, or --in-place")
        if self.frames is not None:
            one_of("--frames", self.frames, dict.fromkeys(IMAGE_FORMATS))
            if self.in_place or self.gop is not None or self.crf is not None:
                raise UsageError("--frames goes with --to and --resize only; remove the others")
        gop = GOP if self.gop is None else self.gop
        crf = CRF if self.crf is None else self.crf
        at_least("--gop", gop, 1)
        within("--crf", crf, 0, 51)
        return CopyForm(_size(self.resize), gop, crf, self.frames)


def begin_copies(options: CopyOptions, videos: Path) -> None:
    """Tidy up after an interrupted command, before the videos are searched.

    Raises UserError if the copies would be among the originals.
    """
    if options.to is not None:
        if options.to.resolve().is_relative_to(videos.resolve()):
            raise UserError(f"--to={options.to} is inside {videos}; give a folder outside of it")
        try:
            options.to.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(options.to, error) from error
        remove_leftovers(options.to)
    if options.in_place:
        remove_leftovers(videos)
        groups: dict[Path, list[Path]] = defaultdict(list)
        for path in video_files(videos):
            groups[path.with_suffix("")].append(path)
        for bare, paths in groups.items():
            copy = bare.with_name(f"{bare.name}.mp4")
            if copy in paths:
                for original in paths:
                    if original != copy and original.is_file():
                        finish_replacement(copy, original)


def make_copies(
    data: DataSet,
    facts: Facts,
    known: Facts,
    options: CopyOptions,
    *,
    form: CopyForm,
    videos: Path,
    verify: str,
    run: Callable[[Sequence[CopyTask]], Results],
) -> tuple[DataSet, Facts]:
    """Copy all videos that can be used; the data set of the copies, and their facts.

    A video without a copy keeps its original path, with a status that is not ok. `run` makes the
    copies; `known` are the facts of earlier ones. Raises UserError if the system refuses to write,
    and if two originals would have the same copy.
    """
    tasks = []
    for original, each in facts.items():
        if each.status == OK:
            copy = _place(original, videos, options, form)
            tasks.append(
                CopyTask(
                    original,
                    each,
                    copy,
                    form,
                    verify,
                    known=known.get(copy),
                    replaces=options.in_place,
                )
            )
    _refuse_collisions(tasks)
    made = {task.original: (task, copied) for task, copied in run(tasks)}
    whole = [(task, copied) for task, copied in made.values() if copied.status == OK]
    for line in _describe(whole):
        print(line)
    found = dict(facts)
    for task, copied in made.values():
        if copied.status == OK:
            del found[task.original]
            found[task.copy] = copied
        else:
            found[task.original] = copied

    def moved(entry: Entry) -> Entry:
        if entry.path is None or entry.path not in made:
            return entry
        task, copied = made[entry.path]
        return replace(entry, path=task.copy) if copied.status == OK else entry

    splits = {
        name: replace(split, entries=[moved(entry) for entry in split.entries])
        for name, split in data.splits.items()
    }
    return replace(data, splits=splits), found


def run_copies(tasks: Sequence[CopyTask], *, num_workers: int, time_limit: float) -> Results:
    """Make copies in processes; yields each task with its outcome as soon as it is ready.

    A process that dies, or that takes longer than PATIENCE times `time_limit` seconds, loses one
    video. Raises UserError if the system refuses to write.
    """
    results = map_in_processes(
        copy_video, tasks, num_workers=num_workers, time_limit=PATIENCE * time_limit
    )
    for number, result in results:
        task = tasks[number]
        if isinstance(result, WriteFailure):
            raise UserError(result.cause)
        if isinstance(result, Lost):
            yield task, replace(task.facts, status=NOT_COPIED, cause=result.cause)
        else:
            yield task, result


def _describe(made: Sequence[tuple[CopyTask, VideoFacts]]) -> Iterator[str]:
    """What the copies changed: their bytes, and the error of some of them."""
    if not made:
        return
    ratio = sum(copied.size for _, copied in made) / sum(task.facts.size for task, _ in made)
    line = f"{len(made)} copies, {ratio:.2f} x the bytes of the originals"
    kept = sorted((task for task, _ in made if not task.replaces), key=lambda task: task.copy)
    errors = []
    for task in kept[:: -(-len(kept) // SAMPLE) or 1]:
        with suppress(DecodeError):  # the original decodes from its start, but not from within
            errors.append(copy_error(task))
    if errors:
        error = fmean(errors)
        quality = f"PSNR {10 * log10(255**2 / error):.1f} dB" if error else "without a difference"
        line += f"; {quality} in {len(errors)} of them, at their size"
    yield line


def _size(text: str | None) -> tuple[int, int] | int | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    sides = [int(side) for side in match.groups() if side] if match else []
    if not sides or any(side < 16 or side % 2 for side in sides):
        raise UsageError(
            f"--resize={text} is not a short side, as in 256, or width x height, as in 340x256; "
            "sides are even and at least 16"
        )
    return (sides[0], sides[1]) if len(sides) == 2 else sides[0]


def _place(original: Path, videos: Path, options: CopyOptions, form: CopyForm) -> Path:
    """Where the copy of a video is."""
    copy = form.target(original)
    if options.to is None:
        if original.is_dir():
            raise UserError(f"{original}: folders of frames are not replaced; give --to DIR")
        return copy
    if not original.is_relative_to(videos):
        raise UserError(f"{original} is outside {videos}; give --videos DIR, a folder above it")
    return options.to / copy.relative_to(videos)


def _refuse_collisions(tasks: Iterable[CopyTask]) -> None:
    for copy, count in Counter(task.copy for task in tasks).items():
        if count > 1:
            first, second, *_ = (str(task.original) for task in tasks if task.copy == copy)
            raise UserError(f"{first} and {second} would both become {copy.name}; rename one")
