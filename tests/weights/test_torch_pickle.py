"""Files of torch.save with objects of other libraries: tensors are read, nothing is executed."""

import argparse
import os
import pickle
import subprocess
import sys
import types
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from nlnet.config import ResNetConfig
from nlnet.errors import UserError
from nlnet.model.build import build_model
from nlnet.weights import torch_pickle
from nlnet.weights.files import WeightFile, read_containers, read_weight_file
from nlnet.weights.torch_pickle import MAGIC

State = dict[str, Tensor]
FORMATS = {"zip": True, "before PyTorch 1.6": False}
each_format = pytest.mark.parametrize("zipped", FORMATS.values(), ids=[*FORMATS])


@cache
def state() -> State:
    torch.manual_seed(0)
    return build_model(ResNetConfig(depth=14, width=4), 3).state_dict()


def check(weights: WeightFile) -> str:
    """All tensors were read. Returns the remark."""
    assert weights.state.keys() == state().keys()
    assert all(torch.equal(weights.state[key], value) for key, value in state().items())
    return " ".join(weights.remarks)


def write(path: Path, saved: object, zipped: bool) -> Path:
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    return path


class Node(dict):
    """A dict with attributes, like those of Lightning, mmengine and addict."""


class Record:
    """An object with state in a dict and in slots."""

    __slots__ = ("__dict__", "a")

    def __init__(self) -> None:
        self.a, self.b = 1, state()["head.fc.bias"]


@pytest.fixture
def unknown() -> Iterator[list[str]]:
    """Put Node and Record into modules that cannot be imported when the file is read."""
    modules = {"mmengine_of_the_test": Node, "lightning_of_the_test": Record}
    for module, kind in modules.items():
        sys.modules[module] = types.ModuleType(module)
        kind.__module__ = module
        setattr(sys.modules[module], kind.__name__, kind)
    names = [f"{kind.__module__}.{kind.__name__}" for kind in modules.values()]
    yield names
    for module, kind in modules.items():
        sys.modules.pop(module, None)
        kind.__module__ = __name__


class Outer:
    class Inner:
        """Pickles name it as an attribute of Outer."""


def forget(names: list[str]) -> None:
    for name in names:
        sys.modules.pop(name.rpartition(".")[0], None)


ENVELOPES: dict[str, Callable[[], dict[str, Any]]] = {
    "Namespace": lambda: {"args": argparse.Namespace(lr=0.1, t=torch.ones(2))},
    "numpy": lambda: {"acc": np.float64(71.2), "rng": np.random.get_state(), "a": np.arange(3)},
    "objects of numpy": lambda: {"a": np.array([{}, None], dtype=object), "b": np.array(["x"])},
    "omegaconf": lambda: {"cfg": OmegaConf.create({"a": {"b": [1, 2]}, "c": "${a.b}"})},
    "paths": lambda: {"path": Path("/x"), "keys": {Path("/x"): 1, (1, 2): 2}},
    "subclasses of dict": lambda: {"hyper_parameters": Node(a=Node(b=1)), "d": defaultdict(list)},
    "objects": lambda: {"callbacks": {"x": Record()}, "list": [Record(), Node()], "s": {Record}},
    "nested classes": lambda: {"x": Outer.Inner(), "y": [Outer.Inner, Outer().__init__]},
    "module": lambda: {"net": nn.Sequential(nn.Conv2d(1, 2, 3)), "e": os.O_RDONLY},
    "functions": lambda: {"lambda": os.path.join, "type": torch.float32, "size": torch.Size([1])},
}


@each_format
@pytest.mark.parametrize("name", ENVELOPES)
def test_tensors_are_read_from_every_envelope(
    name: str, zipped: bool, unknown: list[str], tmp_path: Path
):
    saved = {"epoch": 3, **ENVELOPES[name](), "state_dict": OrderedDict(state()), "last": 0.5}
    path = write(tmp_path / "a.pth", saved, zipped)
    forget(unknown)
    weights = read_weight_file(path)
    check(weights)
    assert all("\n" not in line for line in weights.remarks)
    found = read_containers(path)
    assert found["epoch"] == 3 and found["last"] == 0.5


@each_format
def test_what_is_left_out_is_named_in_one_line(zipped: bool, unknown: list[str], tmp_path: Path):
    saved = {"model": state(), "args": argparse.Namespace(a=1), "x": [Record(), Node(a=1)]}
    path = write(tmp_path / "a.pth", saved, zipped)
    forget(unknown)
    remark = check(read_weight_file(path))
    assert "argparse.Namespace" in remark and all(name in remark for name in unknown)
    assert "\n" not in remark


@each_format
def test_numpy_numbers_and_arrays_of_old_and_new_names_are_read(zipped: bool, tmp_path: Path):
    """numpy 2 renamed numpy.core to numpy._core; files have either name."""
    saved = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float64(1.5)}
    saved |= {"args": argparse.Namespace()}
    path = write(tmp_path / "new", saved, zipped)
    old = tmp_path / "old"
    if zipped:
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(old, "w") as target:
            for name in source.namelist():
                target.writestr(name, source.read(name).replace(b"numpy._core", b"numpy.core"))
    else:
        old.write_bytes(path.read_bytes().replace(b"numpy._core", b"numpy.core"))
    for each in (path, old):
        found = read_containers(each)
        assert torch.equal(found["a"], torch.arange(6.0).view(2, 3)) and found["b"] == 1.5


@each_format
def test_nothing_is_said_where_nothing_is_left_out(zipped: bool, tmp_path: Path):
    path = write(tmp_path / "a.pth", {"model": state(), "acc": np.float64(71.2)}, zipped)
    assert check(read_weight_file(path)) == ""


@each_format
def test_views_types_and_shared_tensors_keep_their_values(zipped: bool, tmp_path: Path):
    base = torch.arange(24).view(4, 6)
    tensors = {
        **{str(t): torch.tensor([0, 1, 2]).to(t) for t in (torch.float64, torch.int8, torch.bool)},
        **{str(t): torch.tensor([0.5, 3]).to(t) for t in (torch.float16, torch.bfloat16)},
        "view": base[1:, ::2].t(),
        "same": base,
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(7.0),
        "parameter": nn.Parameter(torch.ones(2)),
        "expanded": torch.ones(1, 2).expand(3, 2),
    }
    tensors["attribute"] = nn.Parameter(torch.ones(2))
    tensors["attribute"].note = "x"
    path = write(tmp_path / "a", {"model": tensors, "args": argparse.Namespace()}, zipped)
    found = read_containers(path)["model"]
    assert found.keys() == tensors.keys()
    for key, value in tensors.items():
        assert found[key].dtype == value.dtype and torch.equal(found[key], value.detach()), key


TRACE = "trace_of_code"


class Payload:
    """Its pickle calls a function."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


class Loud(dict):
    """Leaves a trace when it is created or changed, as a class of a library could."""

    def __new__(cls, *args: object) -> "Loud":
        Path(TRACE).touch()
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        Path(TRACE).touch()

    def __setitem__(self, key: object, value: object) -> None:
        Path(TRACE).touch()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return super().__reduce_ex__(2)


def loud() -> Loud:
    found = Loud()
    dict.__setitem__(found, "w", torch.ones(1))
    found.note = "state"
    return found


touch = f"touch {TRACE}"
code = f"__import__('pathlib').Path({TRACE!r}).touch()"
PAYLOADS: dict[str, Callable[[], Any]] = {
    "os.system": lambda: Payload(os.system, touch),
    "eval": lambda: Payload(eval, code),
    "exec": lambda: Payload(exec, code),
    "subprocess": lambda: Payload(subprocess.call, ["touch", TRACE]),
    "partial": lambda: Payload(partial(os.system, touch)),
    "dict subclass": loud,
}
PLACES: dict[str, Callable[[Any], Any]] = {
    "value": lambda evil: {"model": state(), "x": evil},
    "before": lambda evil: {"x": evil, "model": state()},
    "among the tensors": lambda evil: {"model": {**state(), "x": evil}},
    "list": lambda evil: {"model": state(), "x": [(evil, {"y": evil})]},
    "argument": lambda evil: {"model": state(), "x": Payload(OrderedDict, [("k", evil)])},
    "state": lambda evil: {"model": with_state(OrderedDict(state()), evil)},
    "attribute of a tensor": lambda evil: {"model": {**state(), "x": with_note(evil)}},
}


def with_state(found: OrderedDict, evil: Any) -> OrderedDict:
    found._metadata = {"x": evil}
    return found


def with_note(evil: Any) -> nn.Parameter:
    parameter = nn.Parameter(torch.ones(1))
    parameter.note = evil
    return parameter


@each_format
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_code_of_a_file_is_run(
    payload: str, place: str, zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "evil.pt", PLACES[place](PAYLOADS[payload]()), zipped)
    Path(TRACE).unlink(missing_ok=True)
    found = read_containers(path)
    assert not Path(TRACE).exists()
    assert state().keys() <= found["model"].keys()


@pytest.mark.parametrize("payload", PAYLOADS)
def test_the_payloads_leave_a_trace_when_they_are_run(
    payload: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Otherwise the test above would show nothing."""
    monkeypatch.chdir(tmp_path)
    program = pickle.dumps(PAYLOADS[payload](), 2)
    Path(TRACE).unlink(missing_ok=True)
    pickle.loads(program)
    assert Path(TRACE).exists()


text = touch.encode()
PROGRAMS = {
    "global and reduce": b"cos\nsystem\n(S'" + text + b"'\ntR.",
    "inst": b"(S'" + text + b"'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'" + text + b"'\no.",
    "newobj": b"\x80\x02cos\nsystem\nS'" + text + b"'\n\x85\x81.",
    "newobj_ex": b"\x80\x04cos\nsystem\nS'" + text + b"'\n\x85}\x92.",
    "stack_global": b"\x80\x04\x8c\x02os\x8c\x06system\x93S'" + text + b"'\n\x85R.",
    "dotted name": b"\x80\x04\x8c\x05torch\x8c\x09os.system\x93S'" + text + b"'\n\x85R.",
    "allowed function, dotted": b"\x80\x04\x8c\x0ctorch._utils"
    b"\x8c\x1e_rebuild_tensor_v2.__globals__\x93.",
    "extension": b"\x80\x02\x82\x01.",
    "build on a function": b"ctorch._utils\n_rebuild_tensor_v2\n(dS'__code__'\nNsb.",
    "slots of a function": b"ctorch._utils\n_rebuild_tensor_v2\nN(dS'__defaults__'\nNs\x86b.",
    "build on a number type": b"ctorch\nFloatStorage\nN(dS'x'\nI1\ns\x86b.",
    "build on a class": b"cargparse\nNamespace\n(dS'x'\nI1\nsb.",
    "slots of a class": b"cargparse\nNamespace\nN(dS'keys'\nNs\x86b.",
    "call of a number type": b"ctorch\nFloatStorage\n(tR.",
    "tensor without storage": b"ctorch._utils\n_rebuild_tensor_v2\n(I1\nI0\n(t(ttR.",
    "tensor outside of its storage": b"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI4\ntQ"
    b"0ctorch._utils\n_rebuild_tensor_v2\n((S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI4\ntQ"
    b"I100000\n(I9\nt(I1\ntI00\nNtR.",
    "unknown storage": b"(S'storage'\nctorch\nFloatStorage\nS'../../x'\nS'cpu'\nI4\ntQ.",
    "persistent call": b"(cos\nsystem\nS'" + text + b"'\ntQ.",
    "unhashable key": b"(d(lNs.",
    "endless dict": b"(dp0\nS'a'\ng0\ns.",
    "no end": b"(d",
}


@pytest.mark.parametrize("name", PROGRAMS)
@each_format
def test_written_programs_are_not_run(
    name: str, zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Each program is the object of a file; it is read without what it asks for, or refused."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pt"
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", PROGRAMS[name])
            archive.writestr("a/version", b"3\n")
            archive.writestr("a/data/0", bytes(16))
    else:
        start = MAGIC + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
        storage = pickle.dumps(["0"], 2) + (4).to_bytes(8, "little") + bytes(16)
        path.write_bytes(start + PROGRAMS[name] + storage)
    before = torch._utils._rebuild_tensor_v2.__code__, torch._utils._rebuild_tensor_v2.__defaults__
    try:
        assert read_containers(path) is not None
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    after = torch._utils._rebuild_tensor_v2.__code__, torch._utils._rebuild_tensor_v2.__defaults__
    assert before == after and argparse.Namespace.__name__ == "Namespace"
    assert [entry.name for entry in tmp_path.iterdir()] == ["evil.pt"]


@each_format
def test_a_cut_or_changed_file_is_refused_or_equal(zipped: bool, tmp_path: Path):
    """Every byte of a zip file has a checksum; an old file has none for its numbers."""
    saved = {"model": {"backbone.conv1.weight": torch.ones(3)}, "args": argparse.Namespace(a=1)}
    data = write(tmp_path / "a.pt", saved, zipped).read_bytes()
    path = tmp_path / "b.pt"
    for length in range(0, len(data), 97 if zipped else 23):
        path.write_bytes(data[:length])
        with pytest.raises(UserError) as error:
            read_containers(path)
        assert "\n" not in str(error.value)


def test_a_tensor_in_a_view_begins_at_the_view():
    """Files from before PyTorch 1.6 can store several tensors in parts of one storage."""
    part = torch_pickle._Storage("numbers", torch.float32, first=3, numel=4)
    tensor = torch_pickle._PickledTensor(part, 1, (2,), (1,))
    reader = torch_pickle._Reader({"numbers": torch.arange(10.0)})
    assert reader.plain(tensor).tolist() == [4.0, 5.0]
