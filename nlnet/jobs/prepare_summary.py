"""The lines that tools/prepare.py prints about a data set."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from nlnet.data.flips import directional_names
from nlnet.data.index.manifest import OK, ManifestHeader, ManifestRow
from nlnet.data.prepare.findings import Findings

MOST = 3  # examples of each kind


def summary_lines(
    header: ManifestHeader, rows: Sequence[ManifestRow], found: Findings
) -> Iterator[str]:
    """Counts, what is left out and why, what to look at, one line each."""
    usable = [row for row in rows if row.facts.status == OK]
    splits = ", ".join(
        f"{name} {found.usable.get(name, 0)} of {count}" for name, count in found.splits.items()
    )
    yield f"{len(usable)} of {len(rows)} videos can be used: {splits}"
    for status, bad in found.left_out.items():
        yield f"left out, {status}: {len(bad)}"
        for row in bad[:MOST]:
            cause = f": {row.facts.cause}" if row.facts.cause else ""
            yield f"   {row.path or row.name} ({row.source}){cause}"
        if len(bad) > MOST:
            yield f"   and {len(bad) - MOST} more; the columns status and cause name them all"
    if not usable:
        return
    facts = [row.facts for row in usable]
    sizes = sorted({(each.width, each.height) for each in facts}, key=lambda size: size[0])
    seconds = [each.duration for each in facts if each.duration]  # folders of frames have none
    rates = sorted(each.rate for each in facts if each.rate)
    timing = f", {median(seconds):.1f} s" if seconds else ""
    rate = f"{rates[0]:.3g} to {rates[-1]:.3g} frames/s, " if rates else ""
    yield (
        f"videos: {median(each.num_frames for each in facts):g} frames{timing} in the median, "
        f"{rate}{sizes[0][0]}x{sizes[0][1]} to {sizes[-1][0]}x{sizes[-1][1]} pixels"
    )
    turned = sum(bool(each.rotation) or each.mirrored for each in facts)
    if turned:
        yield f"turned or mirrored by their display matrix: {turned} videos"
    yield from _classes(header, found)
    yield from _content(found)


def _classes(header: ManifestHeader, found: Findings) -> Iterator[str]:
    """How many videos the classes have, and names that a flip makes wrong."""
    for split, counts in found.class_counts.items():
        if not any(counts.values()):
            continue
        fewest, most = min(counts, key=lambda k: counts[k]), max(counts, key=lambda k: counts[k])
        yield (
            f"{split}: {len(counts)} classes with {counts[fewest]} ({fewest}) to {counts[most]} "
            f"({most}) videos"
        )
        empty = [name for name, count in counts.items() if not count]
        if empty:
            more = f" and {len(empty) - MOST} more" if len(empty) > MOST else ""
            yield f"   no video of {', '.join(empty[:MOST])}{more}"
    names = directional_names(header.class_names)
    if names:
        more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
        yield (
            f"class names speak of left and right ({', '.join(names[:MOST])}{more}): train with "
            "data.augment.flip=false"
        )


def _content(found: Findings) -> Iterator[str]:
    """Short videos, and files with the same content."""
    if found.short:
        yield (
            f"shorter than a clip: {len(found.short)} videos, first {found.short[0].path}; their "
            "frames are repeated (data.clip.short)"
        )
    kinds = {
        "the same content twice in a split": found.copies,
        "the same content in two splits": found.leaks,
        "the same content with two labels": found.conflicts,
    }
    for kind, pairs in kinds.items():
        if pairs:
            yield f"{kind}: {len(pairs)} videos"
            for first, second in pairs[:MOST]:
                yield f"   {first.path} ({first.split}) and {second.path} ({second.split})"


def training_words(videos: Path, manifest: Path, splits: Sequence[str]) -> str:
    """The words with which tools/train.py reads the manifest; `splits` have labels and videos."""
    file, inside = manifest.resolve(), videos.resolve()
    name = str(file.relative_to(inside)) if file.is_relative_to(inside) else str(file)
    held_out = [split for split in ("val", "test") if split in splits]
    words = [f"data.root={videos}"]
    if "train" in splits and held_out:
        chosen = {"train": "train", "val": held_out[0], "test": held_out[-1]}
        words += [f"data.{key}={name}#{split}" for key, split in chosen.items()]
    else:
        words.append(f"data.train={name}#train" if "train" in splits else f"data.train={name}")
    return " ".join(words)
