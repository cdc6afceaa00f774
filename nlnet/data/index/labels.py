"""Class names, and the numbers of the classes that labels refer to."""

import difflib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nlnet.data.index.entries import SplitEntries
from nlnet.data.index.files import nfc
from nlnet.data.index.text import read_text
from nlnet.data.setting_names import ARGUMENT_NAMES, SettingNames
from nlnet.errors import UserError

MOST_NAMES = 3  # of classes, in a message
# How labels refer to classes: (number of the class, its name) -> label. A class can also be
# referred to by its name in each of the forms.
LABEL_FORMS: dict[str, Callable[[int, str], str]] = {
    "name": lambda number, name: name,
    "number": lambda number, name: str(number),
    "code": lambda number, name: name.partition(" ")[0],  # Charades: `c000 Holding some clothes`
}


def read_class_names(path: Path, settings: SettingNames = ARGUMENT_NAMES) -> tuple[str, ...]:
    """The names in a file with one class name a line, in the order of the file.

    Raises UserError for a file that does not exist or is empty, and for empty or repeated lines.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; correct {settings.classes}")
    names: dict[str, int] = {}
    for line, text in enumerate(read_text(path).splitlines(), start=1):
        name = text.strip()
        if not name:
            raise UserError(f"{path} line {line} is empty; give one class name a line")
        if name in names:
            raise UserError(f"{path} line {line} repeats {name!r} of line {names[name]}")
        names[name] = line
    if not names:
        raise UserError(f"{path} is empty; give one class name a line")
    return tuple(names)


def listed_class_names(path: Path, split: SplitEntries, settings: SettingNames) -> tuple[str, ...]:
    """The sorted labels of a split; for whole numbers, "0" to the largest.

    A name that only videos without a file have is no class. Raises UserError, with `path`, if no
    video has a label or no video has label 0.
    """
    labels = {label for entry in split.entries for label in entry.labels}
    if not labels:
        raise UserError(
            f"{path}: no video has a label; name the classes with {settings.classes}=FILE"
        )
    if split.label_form != "number":
        found = {label for entry in split.entries if entry.path for label in entry.labels}
        return tuple(sorted(found or labels))
    if "0" not in labels:
        raise UserError(f"{path}: no video has label 0; count the labels from 0")
    return tuple(str(number) for number in range(max(int(label) for label in labels) + 1))


def class_numbers(
    split: SplitEntries,
    class_names: tuple[str, ...],
    settings: SettingNames,
    numbered_names: tuple[str, ...] | None = None,
) -> list[list[int]]:
    """The classes of each video, as indices into `class_names`.

    Labels that are numbers or codes count `numbered_names`, the classes of the data set, if they
    are given; their names are then looked up in `class_names`, which may have another order. Names
    are compared in Unicode NFC. Raises UserError, with file and line, for a label that is none of
    the classes.
    """
    by_name = {nfc(name): i for i, name in enumerate(class_names)}
    label_of = LABEL_FORMS[split.label_form]
    counted = class_names if numbered_names is None else numbered_names
    meanings = {nfc(label_of(i, name)): name for i, name in enumerate(counted)}
    numbers = {x: by_name[nfc(name)] for x, name in meanings.items() if nfc(name) in by_name}
    numbers |= by_name
    found = [entry for entry in split.entries if entry.path]  # the others have no row in the index
    for entry in found:
        for label in entry.labels:
            if nfc(label) not in numbers:
                name = meanings.get(nfc(label), label)
                near = difflib.get_close_matches(name, class_names, n=1)
                advice = (
                    f"did you mean {near[0]!r}?" if near else f"correct it or {settings.classes}"
                )
                named = "" if name == label else f" ({name})"
                raise UserError(
                    f"{entry.source} has the label {label!r}{named}, "
                    f"which is none of the {len(class_names)} classes; {advice}"
                )
    return [[numbers[nfc(label)] for label in entry.labels] for entry in found]


def name_differences(
    class_names: tuple[str, ...], numbered_names: tuple[str, ...], settings: SettingNames
) -> tuple[str, ...]:
    """A line about what differs between the classes of a model and those that numbers count."""
    ours, theirs = [nfc(name) for name in class_names], [nfc(name) for name in numbered_names]
    if ours == theirs:
        return ()
    only = {
        "the model": [name for name in ours if name not in theirs],
        settings.classes: [name for name in theirs if name not in ours],
    }
    parts = [f"{len(names)} only in {where} ({_few(names)})" for where, names in only.items()]
    parts = [part for part, names in zip(parts, only.values(), strict=True) if names]
    what = ", ".join(parts) or "they have another order"
    return (f"{settings.classes} and the classes of the model are matched by name: {what}",)


def _few(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def indicators(numbers: list[list[int]], num_classes: int) -> np.ndarray:
    """(N, K) float32 with a 1 at each class of a video."""
    rows = np.zeros((len(numbers), num_classes), dtype=np.float32)
    for row, each in zip(rows, numbers, strict=True):
        row[each] = 1
    return rows
