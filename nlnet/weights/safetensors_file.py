"""Files of safetensors: tensors by name, without code. The only file that imports safetensors.

A file begins with the length of its header (8 bytes, the lowest first) and the header, which is a
JSON object. A file is recognized by these bytes, not by its suffix.
"""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from nlnet.files import DamagedFile

LONGEST_HEADER = 100_000_000  # bytes, a limit of the format


def is_safetensors(data: bytes) -> bool:
    """Whether these bytes begin like a safetensors file; it may be cut off."""
    length = int.from_bytes(data[:8], "little")
    return data[8:9] == b"{" and 2 <= length <= LONGEST_HEADER


def read_safetensors(data: bytes, path: Path) -> dict[str, Tensor]:
    """Return the tensors of the content of the file at `path`, on the CPU.

    Raises DamagedFile if the content is not whole.
    """
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedFile(
            f"{path}: is not a whole safetensors file ({error}); use an intact copy"
        ) from error


def to_safetensors(state: Mapping[str, Tensor]) -> bytes:
    """Return the content of a file with these tensors."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    return save(tensors, metadata={"format": "pt"})
