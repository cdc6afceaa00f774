"""Files of safetensors: tensors by name, without code. The only file that imports safetensors.

A file begins with the length of its header (8 bytes, the lowest first) and the header, which is a
JSON object. A file is recognized by these bytes, not by its suffix.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from nlnet.checks import require_libraries
from nlnet.files import DamagedFile

EXTRA = "safetensors"  # of pyproject.toml


def is_safetensors(data: bytes) -> bool:
    """Whether these are the bytes of a safetensors file, as far as its header tells."""
    length = int.from_bytes(data[:8], "little")
    return data[8:9] == b"{" and 2 <= length <= len(data) - 8


def read_safetensors(data: bytes, path: Path) -> dict[str, Tensor]:
    """Return the tensors of the content of the file at `path`, on the CPU.

    Raises:
        DamagedFile: the content is not whole.
        UserError: safetensors is not installed.
    """
    require_libraries(EXTRA, ["safetensors"])
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedFile(
            f"{path}: is not a whole safetensors file ({error}); use an intact copy"
        ) from error


def to_safetensors(state: Mapping[str, Tensor]) -> bytes:
    """Return the content of a file with these tensors; raises UserError without safetensors."""
    require_libraries(EXTRA, ["safetensors"])
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    return save(tensors, metadata={"format": "pt"})
