"""Atomic file writes, and SHA-256 digests that detect damaged files.

`write_verified` keeps the digest of a file beside it, in `<name>.sha256`, as `sha256sum` writes it
(`sha256sum --check` reads it). `read_verified` compares the file with this digest. A file that was
copied without its digest is read unverified.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from nlnet.errors import UserError

Data = bytes | memoryview

# Small files in the folder of a run: which process trains there, and the command that started it.
LOCK, COMMAND = ".lock", "command.txt"


class DamagedFile(UserError):
    """The content of a file is not what was written."""


def digest(data: Data) -> str:
    """Return the SHA-256 of `data` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest_path(path: Path) -> Path:
    """Return the path of the file that holds the digest of the file at `path`."""
    return path.with_name(f"{path.name}.sha256")


def write_atomic(path: Path, data: Data | Iterator[bytes]) -> None:
    """Replace a file. A reader sees the old content or the new content, never a part of it.

    Data that does not fit in memory is given in parts.

    Raises:
        UserError: the file cannot be written; the old content is unchanged.
    """
    try:
        _write_atomic(path, data)
    except OSError as error:
        raise cannot_write(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Replace a text file (UTF-8) as `write_atomic` does, and create its folder if necessary.

    Bytes of file names that are not UTF-8 are written escaped, as `caf\\udce9.mp4`.

    Raises:
        UserError: the file cannot be written; the old content is unchanged.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():  # a device or a pipe, such as /dev/stdout
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
        else:
            _write_atomic(path, text.encode(errors="backslashreplace"))
    except OSError as error:
        raise cannot_write(path, error) from error


def write_verified(path: Path, data: Data, older: Sequence[Path] = ()) -> None:
    """Replace a file and its digest. Killed at any instant, it leaves a file that verifies.

    Args:
        path: the file to replace
        data: its new content
        older: paths in the same folder for the old files, the newest first. Each old file moves on
            by one path, up to a path that is free; otherwise the oldest file is discarded.

    Raises:
        UserError: the file cannot be written; the old files are at `path` or in `older`.
    """
    partial = _partial_path(path)
    try:
        _write_synced(partial, data)
        chain = [path, *older]
        free = next((i for i, each in enumerate(chain) if not each.exists()), len(older))
        for target in range(free, 0, -1):
            old = chain[target - 1]
            _move(old, chain[target], _valid_digests(old) or [digest(old.read_bytes())])
        _move(partial, path, [digest(data)])
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):  # an error here would replace the original exception
            partial.unlink()


def set_aside(path: Path) -> Path:
    """Rename a damaged file, so that no later write moves it over an intact one.

    Returns the new path, or the old one if the file cannot be renamed.
    """
    target = path.with_name(f"{path.name}.damaged")
    try:
        replace_synced(path, target)
    except OSError:  # the next write will say so
        return path
    return target


def remove_verified(path: Path) -> None:
    """Remove a file that is not needed any more, and its digest. A failure is no error."""
    for each in (path, digest_path(path)):
        with suppress(OSError):
            each.unlink()


def read_verified(path: Path) -> bytes:
    """Read a file once, and compare its content with the digest beside it, if there is one.

    Raises:
        DamagedFile: the digest differs.
        UserError: the file or its digest cannot be read.
    """
    try:
        data = path.read_bytes()
        valid = _valid_digests(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); use another file") from error
    if valid and digest(data) not in valid:
        raise DamagedFile(
            f"{path}: is damaged, its SHA-256 is not the one in {digest_path(path).name};"
            " remove it, or use an intact copy"
        )
    return data


def _write_atomic(path: Path, data: Data | Iterator[bytes]) -> None:
    partial = _partial_path(path)
    try:
        _write_synced(partial, data)
        replace_synced(partial, path)
    finally:
        with suppress(OSError):  # an error here would replace the original exception
            partial.unlink()


def _move(source: Path, target: Path, digests: Sequence[str]) -> None:
    """Rename a file and write its digests. At each instant, the file at `target` verifies.

    While the rename is in progress, the digests of the old file and of the new file are valid.
    """

    def write_digests(valid: Sequence[str]) -> None:
        text = "".join(f"{entry}  {target.name}\n" for entry in valid)
        _write_atomic(digest_path(target), text.encode())

    write_digests([*digests, *_valid_digests(target)])
    replace_synced(source, target)
    write_digests(digests)


def _valid_digests(path: Path) -> list[str]:
    """Read the digests of a file: none, one, or two if its last replacement was interrupted."""
    beside = digest_path(path)
    if not beside.exists():
        return []
    lines = beside.read_text(errors="replace").splitlines()
    return [line.split()[0].lower() for line in lines if line.strip()]


def _partial_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _write_synced(path: Path, data: Data | Iterator[bytes]) -> None:
    with path.open("wb") as file:
        file.writelines([data] if isinstance(data, Data) else data)
        file.flush()
        os.fsync(file.fileno())


def replace_synced(source: Path, target: Path) -> None:
    """Rename a file, and wait until the folder's entry is on the disk."""
    source.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def cannot_write(path: Path, error: OSError) -> UserError:
    """The error for a file or folder that the system refuses to write, with the remedy."""
    unchanged = "; the older file is unchanged" if _exists(path) else ""
    return UserError(
        f"{path}: cannot be written ({error.strerror}){unchanged}; free disk space"
        " or set another folder, then run the command again"
    )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise UserError, with the path, if the system refuses to read what the body reads."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror or error}); check that it is still there, "
            "and its permissions"
        ) from error


def _exists(path: Path) -> bool:
    with suppress(OSError):  # a folder of the path may be what cannot be used
        return path.exists()
    return False
