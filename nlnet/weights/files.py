"""Weight files: every envelope is read without running code, and written completely or not at all.

`torch.load(weights_only=True)` accepts tensors and plain containers. A file of torch.save that
holds other objects is read without them. Caffe2's pickles have a reader of their own, which accepts
numpy arrays. Files of safetensors hold tensors only.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

import nlnet
from nlnet.checkpoint import (
    AVERAGED,
    Checkpoint,
    Provenance,
    from_bytes,
    to_bytes,
    to_checkpoint,
    write_checkpoint,
)
from nlnet.checks import one_of
from nlnet.errors import UserError
from nlnet.files import DamagedFile, read_verified, write_verified
from nlnet.weights.caffe2_pickle import read_caffe2, write_caffe2
from nlnet.weights.envelope import TensorSet, is_ours, take_set
from nlnet.weights.folder import read_exported_folder
from nlnet.weights.recognize import recognize
from nlnet.weights.rewrite import StateDict, export_state, import_state
from nlnet.weights.safetensors_file import is_safetensors, read_safetensors
from nlnet.weights.sources.all import CODE_BASES, FORMATS
from nlnet.weights.torch_pickle import MAGIC, ZIP, read_tensor_file

NLNET = "nlnet"
TORCH_FILES = (ZIP, MAGIC)
PICKLES = (b"\x80", b"(", b"}", b"c")  # first byte of a pickle that holds a dict


@dataclass(frozen=True)
class WeightFile:
    """The content of a weight file, with our names."""

    state: StateDict
    form: str | None = None  # the format of the original file, a name in FORMATS; None: nlnet's own
    frame_kernels: bool = True  # the kernels of the original file have a time axis
    config: str | None = None  # YAML text of the run; None if the file does not contain it
    class_names: list[str] | None = None
    foreign: dict[str, Tensor] | None = None  # another code base's tensors, with its names
    remarks: tuple[str, ...] = ()  # what the user should know about the reading, one line each


def read_weight_file(
    path: Path, code_base: str | None = None, key: str | None = None
) -> WeightFile:
    """Read a checkpoint of nlnet or of a code base in CODE_BASES; None recognizes the code base.

    A folder of tools/export.py, and a file with our names alone, are read as nlnet's own. `key`
    is the word of a set of tensors in the file. Without it, a checkpoint of nlnet gives the
    averaged weights if it has them, and another file must hold one network only.

    Raises:
        DamagedFile: the content of the file is not what was written.
        UserError: the file is missing, unsafe or of an unknown format, keys are left over, or it
            holds several sets of tensors.
    """
    if code_base is not None:
        one_of("--from", code_base, dict.fromkeys([NLNET, *CODE_BASES]))
    if path.is_dir() and code_base in (None, NLNET):
        exported = read_exported_folder(path)
        return WeightFile(exported.state, config=exported.run, class_names=exported.class_names)
    saved, remarks = _read_envelope(path)
    found = take_set(saved, str(path), key, AVERAGED if "provenance" in saved else None)
    if code_base in (None, NLNET) and is_ours(found.tensors):
        return _from_checkpoint(saved, found, path, remarks)
    tensors = found.tensors
    form = recognize(tensors)
    if code_base is not None and (form is None or FORMATS[form].code_base != code_base):
        known = "no known format" if form is None else FORMATS[form].code_base
        raise UserError(f"{path}: its keys are those of {known}, not of {code_base}")
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
    return WeightFile(
        state, form, frame_kernels=frame_kernels, foreign=tensors, remarks=tuple(remarks)
    )


def read_containers(path: Path) -> dict[str, Any]:
    """Read a file of torch.save, safetensors or Caffe2 once, without running code that it contains.

    Raises:
        DamagedFile: the content of the file is not what was written.
        UserError: the file is missing or unsafe, or it does not hold a dict.
    """
    return _read_envelope(path)[0]


def _read_envelope(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Read a file as `read_containers` does; the second value has a line about what is left out."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a path, a URL or the name of public weights")
    data = read_verified(path)
    if is_safetensors(data):
        return dict(read_safetensors(data, path)), []
    if not data.startswith(TORCH_FILES) and data.startswith(PICKLES):
        return {name: torch.from_numpy(blob) for name, blob in read_caffe2(data, path).items()}, []
    remarks = []
    try:
        saved = from_bytes(data, path)
    except DamagedFile as error:
        is_foreign = isinstance(error.__cause__, UnpicklingError) and data.startswith(TORCH_FILES)
        if not is_foreign:
            raise
        saved, left_out = read_tensor_file(data, path)
        if left_out:
            remarks.append(f"{path}: left out, unread: {_listed(left_out)}")
    if not isinstance(saved, dict):
        raise UserError(f"{path}: holds a {type(saved).__name__}, not a checkpoint")
    return saved, remarks


def _listed(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} others" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def write_nlnet(path: Path, weights: WeightFile, source: str) -> None:
    """Write a checkpoint of nlnet with its digest; `source` says where the weights come from.

    Raises UserError if the file cannot be written.
    """
    provenance = Provenance(
        config=weights.config,
        class_names=weights.class_names,
        nlnet=nlnet.__version__,
        torch=str(torch.__version__),
        source=source,
        format=weights.form,
        frame_kernels=weights.frame_kernels,
    )
    write_checkpoint(path, Checkpoint(weights.state, provenance))


def write_foreign(path: Path, state: StateDict, form: str, *, frame_kernels: bool) -> int:
    """Write our tensors in a format of FORMATS, with its digest. Returns the number of tensors.

    Raises UserError that lists the keys that the format cannot hold, or if the file cannot be
    written.
    """
    tensors = export_state(state, form, frames=frame_kernels)
    layout = FORMATS[form]
    if layout.code_base == "caffe2":
        buffer = io.BytesIO()
        write_caffe2({name: tensor.numpy() for name, tensor in tensors.items()}, buffer)
        write_verified(path, buffer.getvalue())
    else:
        content = tensors if layout.state is None else {layout.state: tensors}
        write_verified(path, to_bytes(content))
    return len(tensors)


def _from_checkpoint(
    saved: Mapping[str, Any], found: TensorSet, path: Path, remarks: Sequence[str]
) -> WeightFile:
    """Return one set of the tensors of our own file, with what the file says about them."""
    known = Provenance()
    if "provenance" in saved:
        known = to_checkpoint({**saved, "model": found.tensors}, path).provenance
        if found.word == AVERAGED:
            remarks = [*remarks, f"{path}: the averaged weights; {path}#model are the others"]
    return WeightFile(
        found.tensors,
        form=known.format,
        frame_kernels=known.frame_kernels,
        config=known.config,
        class_names=known.class_names,
        remarks=tuple(remarks),
    )
