"""A checkpoint with one flipped byte is refused by everything that reads it, with the same line."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

import nlnet
from nlnet.checkpoint import LAST, read_checkpoint
from nlnet.cli.choices import CONFIG_DIR
from nlnet.cli.compose import to_run
from nlnet.config import RunConfig, register_schemas
from nlnet.files import DamagedFile
from nlnet.jobs.convert import convert
from nlnet.jobs.evaluate import evaluate_run
from nlnet.jobs.train import train

FIXTURE = Path(__file__).parents[1] / "fixtures" / "first_release"


def tiny_run(*overrides: str) -> RunConfig:
    """The run of the fixture."""
    words = ["+experiment=smoke", "model.width=2", "data.test=val", "data.batch_size=4"]
    words += [f"data.root={FIXTURE / 'videos'}", "data.num_workers=0", "dist.device=cpu"]
    words += ["trainer.max_steps=6", "trainer.freeze=[conv1,res2]", *overrides]
    register_schemas()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return to_run(compose("run", overrides=words))


READERS: dict[str, Callable[[Path], Any]] = {
    "read_checkpoint": read_checkpoint,
    "resume": lambda path: train(tiny_run(), path.parent),
    "fine-tune": lambda path: train(tiny_run(f"weights={path}"), path.parent / "tuned"),
    "evaluate": lambda path: evaluate_run(tiny_run(f"weights={path}"), path.parent / "eval"),
    "convert": lambda path: convert(str(path), path.parent / "converted.pt"),
    "nlnet.load": lambda path: nlnet.load(path),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_flipped_byte_is_refused(reader: str, tmp_path: Path):
    path = tmp_path / LAST
    for name in (LAST, f"{LAST}.sha256"):
        shutil.copy(FIXTURE / "run" / name, tmp_path / name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    before = {entry.name for entry in tmp_path.iterdir()}
    expected = f"{path}: is damaged, its SHA-256 is not the one in {LAST}.sha256; "
    kind = Exception if reader == "resume" else DamagedFile  # resume tries last.prev.pt first
    with pytest.raises(kind) as caught:
        READERS[reader](path)
    assert str(caught.value).startswith(expected) and "\n" not in str(caught.value)
    assert {entry.name for entry in tmp_path.iterdir()} == before


@pytest.mark.parametrize("to", ["nlnet", "slowfast", "caffe2"])
def test_a_flipped_byte_in_a_converted_file_is_refused(to: str, tmp_path: Path):
    path = tmp_path / "converted"
    convert(str(FIXTURE / "run" / LAST), path, to=to)
    assert (tmp_path / "converted.sha256").read_text().endswith("  converted\n")
    convert(str(path), tmp_path / "again.pt")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedFile, match="is damaged"):
        convert(str(path), tmp_path / "x.pt")
    assert not (tmp_path / "x.pt").exists()


def test_nlnet_load_reads_a_checkpoint_of_the_first_release():
    recognizer = nlnet.load(FIXTURE / "run" / LAST)
    assert recognizer.class_names == ("different", "same")
    saved = read_checkpoint(FIXTURE / "run" / LAST).model
    assert torch.equal(recognizer.model.head.fc.weight, saved["head.fc.weight"])
