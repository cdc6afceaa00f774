"""Every envelope is read safely, recognized and written completely."""

import io
import pickle
import pickletools
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nlnet.config import ResNetConfig
from nlnet.errors import UserError
from nlnet.model.build import build_model
from nlnet.weights.caffe2_pickle import read_caffe2, write_caffe2
from nlnet.weights.files import (
    WeightFile,
    read_containers,
    read_weight_file,
    write_foreign,
    write_nlnet,
)
from nlnet.weights.rewrite import export_state
from nlnet.weights.sources.all import FORMATS


def tiny(**settings: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return build_model(ResNetConfig(depth=14, width=8, **settings), 5).state_dict()


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def without_counts(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.endswith("tracked")}


def read_blobs(path: Path) -> dict[str, np.ndarray]:
    return read_caffe2(path.read_bytes(), path)


ENVELOPES = {  # format -> the containers that its code base saves around the tensors
    "slowfast": lambda s: {"epoch": 196, "model_state": s, "optimizer_state": {}, "cfg": "A: 1"},
    "pytorchvideo": lambda s: {"model_state": s},
    "pytorchvideo_slow": lambda s: {"model_state": s},
    "mmaction2": lambda s: {"meta": {"epoch": 100}, "state_dict": OrderedDict(s)},
    "torchvision": lambda s: OrderedDict(s),
}


@pytest.mark.parametrize("form", ENVELOPES)
def test_every_envelope_and_format_is_recognized(form: str, tmp_path: Path):
    state = tiny()
    path = tmp_path / "weights.pth"
    frames = form != "torchvision"
    torch.save(ENVELOPES[form](export_state(state, form, frames=frames)), path)
    for named in (None, FORMATS[form].code_base):
        found = read_weight_file(path, named)
        assert (found.form, found.frame_kernels) == (form, frames)
        same(found.state, state)


@pytest.mark.parametrize("wrapper", ["module.", "model."])
def test_prefixes_are_removed(wrapper: str, tmp_path: Path):
    state = tiny()
    theirs = {wrapper + key: value for key, value in export_state(state, "slowfast").items()}
    torch.save({"model_state": theirs}, tmp_path / "w.pyth")
    same(read_weight_file(tmp_path / "w.pyth").state, state)


@pytest.mark.parametrize("form", [*ENVELOPES, "caffe2"])
def test_a_conversion_and_its_reverse_keep_every_bit(form: str, tmp_path: Path):
    state, frames = tiny(), form != "torchvision"
    expected = without_counts(state) if form == "caffe2" else state
    write_foreign(tmp_path / "theirs", state, form, frame_kernels=frames)
    weights = read_weight_file(tmp_path / "theirs")
    write_nlnet(tmp_path / "ours.pt", weights, "theirs")
    again = read_weight_file(tmp_path / "ours.pt")
    assert (again.form, again.frame_kernels, again.foreign) == (form, frames, None)
    same(again.state, expected)
    write_foreign(tmp_path / "back", again.state, form, frame_kernels=again.frame_kernels)
    same(read_weight_file(tmp_path / "back").state, expected)
    assert not list(tmp_path.glob("*.partial"))


def test_a_converted_file_holds_weights_and_provenance(tmp_path: Path):
    write_nlnet(tmp_path / "a.pt", WeightFile(tiny(), class_names=["a", "b"]), "x")
    saved = torch.load(tmp_path / "a.pt", weights_only=True)
    assert saved.keys() == {"model", "provenance"}
    assert saved["provenance"]["class_names"] == ["a", "b"]
    assert read_weight_file(tmp_path / "a.pt").class_names == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "not a safe or whole PyTorch file"),
        (b"PK\x03\x04 and no more", "not a safe or whole PyTorch file"),
        (b"<html>404</html>", "not a safe or whole PyTorch file"),
        (b"hello world", r"not a safe or whole PyTorch file \(it is no pickle\)"),
        (b"ehello", r"not a safe or whole PyTorch file \(it is no pickle\)"),
        (b"X1", r"not a safe or whole PyTorch file \(it is no pickle\)"),
        (pickle.dumps({"blobs": {}}, 2)[:-3], "not a whole Caffe2 pickle"),
    ],
)
def test_the_error_of_a_damaged_file_is_one_line(content: bytes, cause: str, tmp_path: Path):
    (tmp_path / "broken").write_bytes(content)
    with pytest.raises(UserError, match=cause) as error:
        read_weight_file(tmp_path / "broken")
    assert "\n" not in str(error.value)


def test_a_cut_file_is_refused(tmp_path: Path):
    write_foreign(tmp_path / "whole", tiny(), "slowfast", frame_kernels=True)
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:-1000])
    with pytest.raises(UserError, match="not a safe or whole"):
        read_weight_file(tmp_path / "cut")


def test_unknown_and_wrongly_named_formats(tmp_path: Path):
    torch.save({"something": torch.zeros(1)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="neither an nlnet checkpoint nor one of caffe2, slowfast"):
        read_weight_file(tmp_path / "a.pt")
    torch.save({}, tmp_path / "empty.pt")
    with pytest.raises(UserError, match="holds no tensors by name"):
        read_weight_file(tmp_path / "empty.pt")
    write_foreign(tmp_path / "b", tiny(), "slowfast", frame_kernels=True)
    with pytest.raises(UserError, match="those of slowfast, not of mmaction2"):
        read_weight_file(tmp_path / "b", "mmaction2")
    with pytest.raises(UserError, match="--from=keras is unknown"):
        read_weight_file(tmp_path / "b", "keras")


def test_keys_that_are_left_over_are_listed(tmp_path: Path):
    theirs = export_state(tiny(), "slowfast") | {"s9.odd.weight": torch.zeros(1)}
    torch.save({"model_state": theirs}, tmp_path / "a.pyth")
    with pytest.raises(UserError, match=r"1 keys \(s9.odd.weight\) unknown .*another network"):
        read_weight_file(tmp_path / "a.pyth")


class Malicious:
    """Its pickle creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
@pytest.mark.parametrize("place", ["alone", "among blobs"])
def test_a_malicious_pickle_is_refused_and_not_run(protocol: int, place: str, tmp_path: Path):
    trace = tmp_path / "was_here"
    evil: Any = Malicious(trace)
    if place == "among blobs":
        evil = {"blobs": {"conv1_w": np.zeros(3, np.float32), "pred_w": evil}}
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(evil, protocol))
    with pytest.raises(UserError, match=r"refused, the pickle asks for .*open"):
        read_weight_file(tmp_path / "evil.pkl")
    assert not trace.exists()


def test_a_malicious_torch_file_is_not_run(tmp_path: Path):
    trace = tmp_path / "was_here"
    torch.save({"model": {}, "extra": Malicious(trace)}, tmp_path / "evil.pt")
    trace.unlink(missing_ok=True)
    assert read_containers(tmp_path / "evil.pt") == {"model": {}}
    with pytest.raises(UserError, match="holds no tensors by name"):
        read_weight_file(tmp_path / "evil.pt")
    assert not trace.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cbuiltins\neval\n(S'1+1'\ntR.",
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x02cnumpy\nload\n.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nN}S'a'\nNsb.",  # a change to a function
        b"\x80\x02c__builtin__\ngetattr\n(NNtR.",
    ],
)
def test_what_is_not_an_array_is_refused(program: bytes, tmp_path: Path):
    (tmp_path / "p.pkl").write_bytes(program)
    with pytest.raises(UserError, match=r"refused|not a whole Caffe2 pickle"):
        read_blobs(tmp_path / "p.pkl")


def test_arrays_of_objects_are_refused(tmp_path: Path):
    array = np.array([{"a": 1}, None], dtype=object)
    (tmp_path / "p.pkl").write_bytes(pickle.dumps({"blobs": {"w": array}}, 2))
    with pytest.raises(UserError, match="refused"):
        read_blobs(tmp_path / "p.pkl")


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
        np.arange(4, dtype=">f4"),
        np.zeros((0, 3), np.float32),
        np.array(7, np.int64),
    ],
)
def test_arrays_are_read_unchanged(protocol: int, array: np.ndarray, tmp_path: Path):
    (tmp_path / "p.pkl").write_bytes(pickle.dumps({"blobs": {"w": array}}, protocol))
    found = read_blobs(tmp_path / "p.pkl")["w"]
    assert found.dtype == array.dtype.newbyteorder("=") and found.shape == array.shape
    assert np.array_equal(found, array)


def test_a_file_of_python_2_is_read(tmp_path: Path):
    """Its strings hold the bytes of arrays and names; single numbers of numpy are blobs."""
    blobs = {"conv1_w": np.array([1.5, -2.0], np.float32), "lr": np.float32(0.25), "model_iter": 3}
    buffer = io.BytesIO()
    write_caffe2({"x": np.zeros(1)}, buffer)
    modern = pickle.dumps({"blobs": blobs}, 2)
    # Python 2 writes the bytes unchanged, as SHORT_BINSTRING, without a codec.
    old = python_2(modern)
    assert b"_codecs" not in old
    (tmp_path / "old.pkl").write_bytes(old)
    found = read_blobs(tmp_path / "old.pkl")
    assert found["conv1_w"].tolist() == [1.5, -2.0] and found["conv1_w"].dtype == np.float32
    assert float(found["lr"]) == 0.25 and int(found["model_iter"]) == 3


def python_2(program: bytes) -> bytes:
    """Replace each call that creates bytes in a protocol-2 pickle by the bytes."""
    operations = [
        (op.name, value, program[start:end])
        for (op, value, start), end in zip(
            pickletools.genops(program),
            [*[place for _, _, place in pickletools.genops(program)][1:], len(program)],
            strict=True,
        )
    ]
    memo: dict[int, Any] = {}
    codec: int | None = None
    out, i = b"", 0
    while i < len(operations):
        name, value, raw = operations[i]
        is_codec = (name == "GLOBAL" and value == "_codecs encode") or (
            name == "BINGET" and value == codec
        )
        if not is_codec:
            out, i = out + raw, i + 1
            continue
        j = i + 1
        if operations[j][0] == "BINPUT":
            codec, j = operations[j][1], j + 1
        texts = []
        while operations[j][0] != "REDUCE":
            kind, content, _ = operations[j]
            if kind == "BINUNICODE":
                texts.append(content)
            elif kind == "BINPUT" and texts and operations[j - 1][0] == "BINUNICODE":
                memo[content] = texts[-1]
            elif kind == "BINGET":
                texts.append(memo[content])
            j += 1
        data = texts[0].encode("latin1")
        out += b"U" + bytes([len(data)]) + data
        i = j + 1
    return out


def test_a_flat_caffe2_file_is_read(tmp_path: Path):
    theirs = {k: v.numpy() for k, v in export_state(tiny(), "caffe2").items()}
    (tmp_path / "flat.pkl").write_bytes(pickle.dumps({**theirs, "lr": 0.1}, 2))
    same(read_weight_file(tmp_path / "flat.pkl").state, without_counts(tiny()))


def test_caffe2_files_are_pickles_that_python_2_reads(tmp_path: Path):
    write_foreign(tmp_path / "a.pkl", tiny(), "caffe2", frame_kernels=True)
    program = (tmp_path / "a.pkl").read_bytes()
    assert program[:2] == b"\x80\x02"
    blobs = pickle.loads(program, encoding="latin1")["blobs"]
    assert blobs["conv1_w"].dtype == np.float32 and "pred_b" in blobs
    modules = {value for op, value, _ in pickletools.genops(program) if op.name == "GLOBAL"}
    assert not any(module.startswith("numpy._core") for module in modules)
