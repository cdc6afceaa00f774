"""Folders for model hubs, and files of safetensors: what is written is read back, bit for bit."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from nlnet.errors import UserError
from nlnet.files import DamagedFile
from nlnet.weights.files import read_weight_file
from nlnet.weights.folder import CARD, CONFIG, WEIGHTS, write_folder

FACTS = {"nlnet": "1", "class_names": ["a", "é"], "run": "name: x\n"}


def state() -> dict[str, Tensor]:
    return {
        "backbone.conv1.weight": torch.randn(4, 3, 1, 7, 7).transpose(3, 4),  # not contiguous
        "backbone.norm1.num_batches_tracked": torch.tensor(7),
        "head.fc.weight": torch.randn(2, 4),
    }


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[key], second[key]) and first[key].dtype == second[key].dtype
        for key in first
    )


def test_a_folder_is_read_back(tmp_path: Path):
    tensors = state()
    folder = tmp_path / "new" / "folder"
    for _ in range(2):  # the second time, the files are replaced
        write_folder(folder, tensors, FACTS, "card")
    assert {path.name for path in folder.iterdir()} == {WEIGHTS, CONFIG, CARD}
    weights = read_weight_file(folder)
    assert same(weights.state, tensors)
    assert (weights.config, weights.class_names) == ("name: x\n", ["a", "é"])
    assert weights.form is None and weights.frame_kernels


def test_files_of_something_else_are_kept(tmp_path: Path):
    for name in (CARD, CONFIG):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("{}")
        with pytest.raises(UserError, match=rf"^[^\n]*{name}[^\n]*--out[^\n]*$"):
            write_folder(folder, state(), FACTS, "card")
        assert [path.name for path in folder.iterdir()] == [name]
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone" / ".gitattributes").write_text("")  # a new repository of a hub
    write_folder(tmp_path / "clone", state(), FACTS, "card")


def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path):
    first, second = tmp_path / "first", tmp_path / "second"
    write_folder(first, state(), FACTS, "card")
    write_folder(second, state(), FACTS, "card")
    (first / WEIGHTS).write_bytes((second / WEIGHTS).read_bytes())  # of another export
    with pytest.raises(DamagedFile, match=rf"^[^\n]*{WEIGHTS}[^\n]*SHA-256[^\n]*$"):
        read_weight_file(first)
    (first / WEIGHTS).unlink()
    with pytest.raises(UserError, match=rf"^[^\n]*{WEIGHTS}: no such file[^\n]*$"):
        read_weight_file(first)
    (second / CONFIG).write_text(json.dumps({"class_names": []}))
    with pytest.raises(UserError, match=rf"^[^\n]*{CONFIG}[^\n]*'run'[^\n]*$"):
        read_weight_file(second)
    (second / CONFIG).unlink()
    with pytest.raises(UserError, match=rf"^[^\n]*without {CONFIG}[^\n]*best.pt[^\n]*$"):
        read_weight_file(second)


@pytest.mark.parametrize("last_byte", [0x80, 0x28, 0x10])
def test_a_safetensors_file_is_recognized_by_its_content(tmp_path: Path, last_byte: int):
    """The first byte of its header's length can be that of a pickle, 0x80 or 0x28."""
    tensors = state()
    for padding in range(256):
        tensors_data = {key: tensor.contiguous() for key, tensor in tensors.items()}
        data = save(tensors_data, metadata={"padding": " " * padding})
        if data[0] == last_byte:
            break
    assert data[0] == last_byte
    path = tmp_path / "weights.bin"
    path.write_bytes(data)
    assert same(read_weight_file(path).state, tensors)
    path.write_bytes(data[:-1])
    with pytest.raises(DamagedFile, match=r"^[^\n]*weights.bin: [^\n]*safetensors[^\n]*$"):
        read_weight_file(path)
