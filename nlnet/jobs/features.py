"""The pooled features of videos, in one file: .npz, or .parquet with the extra `parquet`."""

import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from nlnet.errors import UsageError, UserError
from nlnet.files import write_atomic
from nlnet.recognizer.prediction import Features
from nlnet.recognizer.recognizer import Recognizer
from nlnet.runs.logger import progress_bar

SUFFIXES = (".npz", ".parquet")


def check_features_file(path: Path) -> None:
    """Raise UsageError for another suffix, UserError if the library of .parquet is absent."""
    if path.suffix not in SUFFIXES:
        raise UsageError(f"--features {path}: must end with {' or '.join(SUFFIXES)}")
    if path.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise UserError("pyarrow: not installed; run pip install 'nlnet[parquet]', or give .npz")
    if not path.parent.is_dir():
        raise UsageError(f"--features {path}: the folder {path.parent} does not exist; create it")


def write_features(
    recognizer: Recognizer,
    videos: Sequence[str | Path],
    path: Path,
    window: float | None,
    step: float | None,
) -> list[str]:
    """Compute the features of each window of the videos and write them to one file.

    A row of the file is one window: its features, its video, start and end in seconds.

    Returns:
        the errors of the videos that could not be read; they have no rows

    Raises UserError if no video could be read, or the file cannot be written.
    """
    names, parts, errors = [], [], []
    for video in progress_bar(videos, "videos"):
        try:
            part = recognizer.features(video, window, step)
        except UserError as error:
            cause = str(error).removeprefix(f"{video}: ")
            print(f"{video}\n   cannot be read: {cause}")
            errors.append(str(error))
            continue
        names.append(str(video))
        parts.append(part)
    if not parts:
        raise UserError(f"none of {len(videos)} videos could be read; {path} is not written")
    data = _npz(names, parts) if path.suffix == ".npz" else _parquet(names, parts)
    write_atomic(path, data)
    rows = sum(len(part.values) for part in parts)
    print(f"{path}: {rows} x {parts[0].values.shape[1]} features of {len(names)} videos")
    return errors


def _npz(names: Sequence[str], parts: Sequence[Features]) -> bytes:
    """Arrays: features (n, C), video (n,) as an index of videos (V,), start (n,), end (n,)."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        features=np.concatenate([part.values for part in parts]),
        video=np.repeat(np.arange(len(parts)), [len(part.values) for part in parts]),
        videos=np.array(names),
        start=np.concatenate([part.start for part in parts]),
        end=np.concatenate([part.end for part in parts]),
    )
    return buffer.getvalue()


def _parquet(names: Sequence[str], parts: Sequence[Features]) -> bytes:
    """Columns: video (its path), start, end, features (a list of C numbers)."""
    import pyarrow
    from pyarrow import parquet

    columns = {
        "video": [name for name, part in zip(names, parts, strict=True) for _ in part.values],
        "start": np.concatenate([part.start for part in parts]),
        "end": np.concatenate([part.end for part in parts]),
        "features": [row for part in parts for row in part.values],
    }
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), buffer)
    return buffer.getvalue()
