"""Shards that are not the right ones are named before anything is read."""

import os
import shutil
from pathlib import Path

import pytest

from nlnet.data.index.manifest import read_manifest_rows
from nlnet.data.index.read import read_index
from nlnet.errors import UserError
from nlnet.jobs.prepare import run_prepare
from tests.data.shards.conftest import shards_of


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        read_index(folder, "manifest.parquet#train")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_missing_shard(copied: Path):
    (copied / "train-000001.tar").unlink()
    (copied / "val-000000.tar").unlink()  # is not needed
    message = refused(copied)
    assert str(copied / "train-000001.tar") in message and "No such file" in message


@pytest.mark.parametrize("size", [0, 700, 20_000])
def test_a_shard_that_is_cut_short(size: int, copied: Path):
    whole = (copied / "train-000000.tar").stat().st_size
    os.truncate(copied / "train-000000.tar", size)
    message = refused(copied)
    assert str(copied / "train-000000.tar") in message and "copy the shard again" in message
    if size > 1024:
        assert f"has 20,000 bytes, not {whole:,}" in message


def test_a_shard_of_another_manifest(copied: Path, prepared: Path):
    """Even of the same size."""
    name = "train-000000.tar"
    size = (copied / name).stat().st_size
    shutil.copy(copied / "train-000001.tar", copied / name)
    os.truncate(copied / name, size)
    message = refused(copied)
    assert str(copied / name) in message and "not the shard that the manifest describes" in message


def test_a_file_that_is_no_shard(copied: Path):
    path = copied / "train-000000.tar"
    path.write_bytes(bytes(path.stat().st_size))
    assert "not the shard" in refused(copied)


def test_shards_in_the_folder_of_a_class_are_no_class(tmp_path: Path, prepared: Path):
    shutil.copytree(prepared / "val", tmp_path / "all")
    assert [*shards_of(tmp_path / "all").glob("all-*.tar")]
    shards_of(tmp_path / "all")
    assert read_index(tmp_path / "all", "manifest.parquet").class_names == ("a", "b")


def test_check_compares_all_bytes(copied: Path, capsys: pytest.CaptureFixture[str]):
    manifest = copied / "manifest.parquet"
    words = {"suspects": manifest, "clip": None, "root": None}
    run_prepare("check", **words)
    assert "9 of 9 videos are as they were written" in capsys.readouterr().out
    _, rows = read_manifest_rows(manifest)
    changed, lost = rows[0], next(row for row in rows if row.split == "val")
    with (copied / changed.shard).open("r+b") as file:
        file.seek(changed.offset + changed.facts.size - 1)
        file.write(b"?")
    (copied / lost.shard).unlink()
    with pytest.raises(UserError, match=r"of the videos of .* cannot be used; copy the shards"):
        run_prepare("check", **words)
    said = capsys.readouterr().out
    assert f"{changed.path}: its bytes in the shard have changed" in said
    assert f"{lost.path}: {copied / lost.shard} cannot be read (No such file" in said
    assert "train-000001.tar" not in said
