"""What a manifest shows about a data set: counts, and what to look at before training."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nlnet.data.index.manifest import OK, ManifestHeader, ManifestRow


@dataclass(frozen=True)
class Findings:
    """Counts over the rows of a manifest; each list names rows."""

    splits: dict[str, int]  # rows
    usable: dict[str, int]  # rows with status ok, of each split
    left_out: dict[str, list[ManifestRow]]  # rows by the status that is not ok
    short: list[ManifestRow]  # usable rows with fewer frames than a clip
    copies: list[tuple[ManifestRow, ManifestRow]]  # another row of the split has the same content
    leaks: list[tuple[ManifestRow, ManifestRow]]  # another split has the same content
    conflicts: list[tuple[ManifestRow, ManifestRow]]  # the same content with other labels
    class_counts: dict[str, dict[str, int]]  # usable videos of each class, of each split


def find_problems(
    header: ManifestHeader, rows: Sequence[ManifestRow], clip_frames: int
) -> Findings:
    """Count, and compare the content of files by their digests."""
    usable = [row for row in rows if row.facts.status == OK]
    left_out: dict[str, list[ManifestRow]] = defaultdict(list)
    for row in rows:
        if row.facts.status != OK:
            left_out[row.facts.status].append(row)
    names = header.class_names
    counts: dict[str, Counter[str]] = {
        split: Counter(dict.fromkeys(names, 0)) for split in {row.split: 0 for row in rows}
    }
    for row in usable:
        counts[row.split].update(names[label] for label in row.labels)
    copies, leaks, conflicts = _same_content(usable)
    return Findings(
        splits=dict(Counter(row.split for row in rows)),
        usable=dict(Counter(row.split for row in usable)),
        left_out=dict(sorted(left_out.items(), key=lambda item: -len(item[1]))),
        short=[row for row in usable if row.end_frame - row.start_frame < clip_frames],
        copies=copies,
        leaks=leaks,
        conflicts=conflicts,
        class_counts={split: dict(count) for split, count in counts.items()},
    )


Pairs = list[tuple[ManifestRow, ManifestRow]]


def _same_content(rows: Iterable[ManifestRow]) -> tuple[Pairs, Pairs, Pairs]:
    """Pairs of rows with the same frames: in one split, in two splits, with other labels."""
    groups: dict[tuple[str, int, int], list[ManifestRow]] = defaultdict(list)
    for row in rows:
        groups[row.facts.sha256, row.start_frame, row.end_frame].append(row)
    copies: Pairs = []
    leaks: Pairs = []
    conflicts: Pairs = []
    for group in groups.values():
        first = group[0]
        for row in group[1:]:
            (copies if row.split == first.split else leaks).append((first, row))
            if row.labels != first.labels:
                conflicts.append((first, row))
    return copies, leaks, conflicts
