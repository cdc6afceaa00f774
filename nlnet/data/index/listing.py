"""A list with one `path label` a line.

Labels are class names or whole numbers from 0. Spaces, tabs or commas separate a path from its
labels. Commas also separate the labels of a video that has several, `path label,label`. A list
with a comma between or after the labels of any line is a multi-label list: `path label,` marks a
list in which each video happens to have one label.
"""

import re

from nlnet.data.index.entries import Entry, SplitEntries, SplitSource
from nlnet.data.index.files import VIDEO_SUFFIXES
from nlnet.data.index.text import read_text
from nlnet.errors import UserError

PATH_AND_LABEL = re.compile(r"(?P<path>.*[^ \t,])[ \t,]+(?P<labels>[^ \t,]+)")
# A path may contain commas. Several labels are therefore recognized only after a video suffix,
# which marks the end of the path.
PATH_AND_LABELS = re.compile(
    rf"(?P<path>.*(?i:{'|'.join(map(re.escape, sorted(VIDEO_SUFFIXES)))}))[ \t,]+"
    r"(?P<labels>[^ \t,]+([ \t]*,[ \t]*[^ \t,]+)*,?)"
)


def is_listing(source: SplitSource) -> bool:
    """True: every file that has no other format is read as a list."""
    return True


def read_listing(source: SplitSource) -> SplitEntries:
    """The videos of a list; empty lines are skipped.

    Raises UserError for a line without a label, and for names mixed with numbers.
    """
    source.refuse_part()
    entries, multi_label = [], False
    for line, text in enumerate(read_text(source.path).splitlines(), start=1):
        words = text.strip()
        if not words:
            continue
        place = f"{source.path} line {line}"
        match = PATH_AND_LABELS.fullmatch(words) or PATH_AND_LABEL.fullmatch(words)
        if match is None:
            raise UserError(f"{place} is not `path label`: {words!r}; add the label")
        multi_label |= "," in match["labels"]
        labels = tuple(label for label in re.split(r"[ \t,]+", match["labels"]) if label)
        file = source.videos / match["path"]
        entries.append(Entry(place, match["path"], labels, file if file.is_file() else None))
    label_form = "number" if _labels_are_numbers(entries) else "name"
    return SplitEntries(entries, label_form, multi_label)


def _labels_are_numbers(entries: list[Entry]) -> bool:
    """Whether all labels are whole numbers; raises UserError if only some are."""
    labels = [(label, entry) for entry in entries for label in entry.labels]
    names = [(label, entry) for label, entry in labels if not label.isdecimal()]
    if 0 < len(names) < len(labels):
        label, entry = names[0]
        raise UserError(
            f"{entry.source} has the label {label!r}, but other labels are whole numbers; "
            "use names or numbers in all lines"
        )
    return not names
