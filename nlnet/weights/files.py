"""Files of weights: every envelope is read safely, and written whole or not at all.

`torch.load(weights_only=True)` admits tensors and plain containers, never code; Caffe2's pickles
have a reader of their own that admits numpy arrays.
"""

import io
import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nlnet.checks import one_of
from nlnet.errors import UserError
from nlnet.weights.caffe2_pickle import first_line, read_caffe2, write_caffe2
from nlnet.weights.formats import CODE_BASES, FORMATS, recognise
from nlnet.weights.rewrite import StateDict, export_state, import_state

NLNET = "nlnet"
STEM = "backbone.conv1.weight"  # of our ResNets; other networks have modules of their own
TORCH_FILES = (b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")  # zip, and before 1.6
NO_PICKLE = (LookupError, TypeError, AttributeError, struct.error)  # what junk does to the reader
WRAPPERS = ("module.", "model.")  # around a network that ran on several GPUs, or in SlowFast


@dataclass(frozen=True)
class WeightFile:
    """What a file of weights holds, under our names."""

    state: StateDict
    form: str | None = None  # the format it came in, a name in FORMATS; None: never another's
    frame_kernels: bool = True  # its kernels have an axis of time
    config: str | None = None  # YAML text of the run it is of, where the file knows it
    class_names: list[str] | None = None
    foreign: dict[str, Tensor] | None = None  # another code base's tensors, under its names


def read_weight_file(path: Path, code_base: str | None = None) -> WeightFile:
    """Read a checkpoint of ours or of a code base in CODE_BASES, recognised where none is named.

    Raises UserError for a file that is missing, unsafe, damaged or of an unknown format, and lists
    the keys that are left over.
    """
    if code_base is not None:
        one_of("--from", code_base, dict.fromkeys([NLNET, *CODE_BASES]))
    saved = read_file(path)
    if code_base in (None, NLNET) and is_ours(saved):
        return read_ours(saved)
    tensors = unwrap(saved)
    form = recognise(tensors)
    if code_base is not None and (form is None or FORMATS[form].code_base != code_base):
        found = "no format that is known" if form is None else FORMATS[form].code_base
        raise UserError(f"{path}: its keys are those of {found}, not of {code_base}")
    if form is None and not tensors:
        raise UserError(f"{path}: holds no tensors by name")
    if form is None:
        raise UserError(
            f"{path}: neither an nlnet checkpoint nor one of {', '.join(CODE_BASES)}; its first "
            f"keys are {', '.join(list(tensors)[:3])}"
        )
    try:
        state = import_state(tensors, form)
    except UserError as error:
        raise UserError(f"{path}: {error}; it is another network") from error
    frame_kernels = any(tensor.dim() == 5 for tensor in tensors.values())
    return WeightFile(state, form, frame_kernels=frame_kernels, foreign=tensors)


def is_ours(saved: Mapping[str, Any]) -> bool:
    """Whether this is a checkpoint of nlnet; other code bases wrap foreign keys in "model"."""
    model = saved.get("model")
    return isinstance(model, dict) and ("provenance" in saved or STEM in model)


def read_ours(saved: Mapping[str, Any]) -> WeightFile:
    """Our checkpoint: of a run, whose provenance knows its config, or a converted one."""
    known = saved.get("provenance", {})
    return WeightFile(
        dict(saved["model"]),
        form=known.get("format"),
        frame_kernels=known.get("frame_kernels", True),
        config=known.get("config"),
        class_names=known.get("class_names"),
    )


def unwrap(saved: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of another code base's file, out of its envelope and wrappers."""
    envelopes = [form.state for form in FORMATS.values() if form.state is not None]
    inner = next((saved[key] for key in [*envelopes, "model"] if key in saved), saved)
    tensors = inner if isinstance(inner, dict) else saved
    for wrapper in WRAPPERS:
        if all(key.startswith(wrapper) for key in tensors):
            tensors = {key.removeprefix(wrapper): value for key, value in tensors.items()}
    return {key: value for key, value in tensors.items() if isinstance(value, Tensor)}


def read_file(path: Path) -> dict[str, Any]:
    """A file of torch.save or of Caffe2, read without running anything that it holds."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a path, a URL or the name of public weights")
    with path.open("rb") as file:
        head = file.read(32)
    if not head.startswith(TORCH_FILES) and head[:1] in (b"\x80", b"(", b"}", b"c"):
        return {name: torch.from_numpy(blob) for name, blob in read_caffe2(path).items()}
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (*NO_PICKLE, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise UserError(f"{path}: not a safe or whole PyTorch file ({cause(error)})") from error
    if not isinstance(saved, dict):
        raise UserError(f"{path}: holds a {type(saved).__name__}, not a checkpoint")
    return saved


def cause(error: Exception) -> str:
    """Why torch refused a file, in one line: what the pickle asked for, if it asked."""
    asked = [line.strip() for line in str(error).splitlines() if "Unsupported" in line]
    if isinstance(error, NO_PICKLE):  # its text is of the reader's inside
        asked = ["it is no pickle"]
    return (asked or [first_line(error)])[0]


def write_nlnet(path: Path, weights: WeightFile, provenance: Mapping[str, Any]) -> None:
    """Write a file of weights of ours; `provenance` says where they come from."""
    known = {
        "config": weights.config,
        "class_names": weights.class_names,
        "format": weights.form,
        "frame_kernels": weights.frame_kernels,
    }
    buffer = io.BytesIO()
    torch.save({"model": weights.state, "provenance": {**known, **provenance}}, buffer)
    write_whole(path, buffer)


def write_foreign(path: Path, state: StateDict, form: str, *, frame_kernels: bool) -> int:
    """Write our tensors in a format of FORMATS, in its envelope; how many they were.

    Raises UserError listing the keys that the format cannot hold.
    """
    tensors = export_state(state, form, frames=frame_kernels)
    envelope = FORMATS[form].state
    buffer = io.BytesIO()
    if FORMATS[form].code_base == "caffe2":
        write_caffe2({name: tensor.numpy() for name, tensor in tensors.items()}, buffer)
    else:
        torch.save(tensors if envelope is None else {envelope: tensors}, buffer)
    write_whole(path, buffer)
    return len(tensors)


def write_whole(path: Path, buffer: io.BytesIO) -> None:
    """Write beside the target, then rename; raises UserError where that is impossible."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(buffer.getbuffer())
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        partial.unlink(missing_ok=True)
