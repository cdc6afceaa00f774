"""Atomic writes, and the digests that detect damaged files."""

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nlnet.errors import UserError
from nlnet.files import (
    DamagedFile,
    digest,
    read_verified,
    write_atomic,
    write_text,
    write_verified,
)


class Killed(BaseException):
    pass


def run_and_kill(write: Callable[[], None], allowed: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Call `write`, and kill it instead of its next change after `allowed` changes of the disk.

    Returns whether it finished.
    """
    changes = 0

    def counted(change: Callable[..., object]) -> Callable[..., object]:
        def wrapper(*args: object) -> object:
            nonlocal changes
            changes += 1
            if changes > allowed:
                raise Killed
            return change(*args)

        return wrapper

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", counted(Path.replace))
        patch.setattr(os, "fsync", counted(lambda descriptor: None))
        try:
            write()
        except Killed:
            return False
    return True


@pytest.mark.parametrize(
    ("kept", "name"), [(0, "last.pt"), (1, "last.pt"), (1, "my weights.pt"), (3, "last.pt")]
)
def test_a_write_that_is_killed_leaves_the_old_files_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kept: int
):
    """Kill it before each change of the disk in turn. A name with a space changes nothing.

    No file but the oldest is lost, also when the next write finds the gap that the kill left.
    """
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a killed process loses no cache
    versions = [f"version {i}".encode() for i in range(7)]
    allowed, finished = 0, False
    while not finished:
        folder = tmp_path / str(allowed)
        folder.mkdir()
        path, older = folder / name, [folder / f"older{i}" for i in range(kept)]

        def write(data: bytes, path: Path = path, older: list[Path] = older) -> None:
            write_verified(path, data, older)

        def found(path: Path = path, older: list[Path] = older) -> list[bytes]:
            return [read_verified(each) for each in (path, *older) if each.exists()]

        for version in versions[:5]:
            write(version)
        newest_first = versions[4::-1]
        assert found() == newest_first[: kept + 1]
        finished = run_and_kill(lambda write=write: write(versions[5]), allowed, monkeypatch)
        left = [each for each in found() if each != versions[5]]
        assert left == newest_first[: len(left)] and len(left) >= kept
        assert found()[0] == versions[5] if finished else found()
        write(versions[6])  # the next write works and cleans up
        assert found()[0] == versions[6] and len(found()) == kept + 1
        assert found()[1:] == [each for each in versions[5::-1] if each in found()[1:]]
        assert not list(folder.glob("*.partial"))
        allowed += 1
    assert allowed > 4


def test_an_older_file_takes_the_first_free_path(tmp_path: Path):
    older = [tmp_path / "1", tmp_path / "2", tmp_path / "3"]
    for content in (b"a", b"b", b"c", b"d"):
        write_verified(tmp_path / "0", content, older)
    older[0].unlink()
    write_verified(tmp_path / "0", b"e", older)
    assert [read_verified(tmp_path / str(i)) for i in range(4)] == [b"e", b"d", b"b", b"a"]


def test_sha256sum_checks_the_digest(tmp_path: Path):
    for content in (b"first", b"second"):
        write_verified(tmp_path / "a.bin", content, [tmp_path / "b.bin"])
    expected = f"{hashlib.sha256(b'second').hexdigest()}  a.bin\n"
    assert (tmp_path / "a.bin.sha256").read_text() == expected
    command = ["sha256sum", "--check", "--status", "a.bin.sha256", "b.bin.sha256"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0


def test_a_flipped_byte_is_refused_in_one_line(tmp_path: Path):
    path = tmp_path / "a.bin"
    write_verified(path, b"content")
    path.write_bytes(b"contenT")
    with pytest.raises(DamagedFile, match=r"a\.bin: is damaged, .* a\.bin\.sha256; .*") as caught:
        read_verified(path)
    assert "\n" not in str(caught.value)
    path.write_bytes(b"content")
    assert read_verified(path) == b"content"
    beside = tmp_path / "a.bin.sha256"
    beside.write_text(beside.read_text().replace(digest(b"content")[0], "x", 1))
    with pytest.raises(DamagedFile):  # the digest itself is damaged
        read_verified(path)


def test_a_file_without_a_digest_is_read(tmp_path: Path):
    (tmp_path / "a.bin").write_bytes(b"content")
    assert read_verified(tmp_path / "a.bin") == b"content"


def test_a_file_without_a_digest_has_one_when_it_becomes_the_previous_file(tmp_path: Path):
    (tmp_path / "a.bin").write_bytes(b"old")
    write_verified(tmp_path / "a.bin", b"new", [tmp_path / "b.bin"])
    assert read_verified(tmp_path / "b.bin") == b"old"
    assert digest(b"old") in (tmp_path / "b.bin.sha256").read_text()


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"none\.bin: cannot be read \(No such file"):
        read_verified(tmp_path / "none.bin")


@pytest.mark.parametrize("write", [write_atomic, write_verified])
def test_a_file_that_cannot_be_written_is_named_in_one_line(tmp_path: Path, write):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/x: cannot be written \([^\n]*$"):
        write(tmp_path / "file" / "x", b"")


def test_a_text_file_gets_its_folder(tmp_path: Path):
    write_text(tmp_path / "new" / "x.json", '{"é": 1}')
    assert (tmp_path / "new" / "x.json").read_bytes() == '{"é": 1}'.encode()


def test_a_name_that_is_not_utf_8_is_written_escaped(tmp_path: Path):
    write_text(tmp_path / "x.csv", os.fsdecode(b"caf\xe9.mp4"))
    assert (tmp_path / "x.csv").read_bytes() == b"caf\\udce9.mp4"


def test_a_failed_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_atomic(tmp_path / "x", b"old")
    assert not run_and_kill(lambda: write_atomic(tmp_path / "x", b"new"), 1, monkeypatch)
    assert (tmp_path / "x").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
