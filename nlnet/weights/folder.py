"""A folder that a model hub accepts: model.safetensors, config.json and README.md.

config.json contains the SHA-256 of the weights, so that a folder with files of two exports is
refused. It is written last.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from nlnet.errors import UserError
from nlnet.files import DamagedFile, digest, read_verified, write_atomic, write_text
from nlnet.weights.safetensors_file import read_safetensors, to_safetensors

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CARD = "README.md"
REMEDY = "export it again with tools/export.py --to safetensors"


class _ExportedFolder(NamedTuple):
    """The content of an exported folder."""

    state: dict[str, Tensor]
    run: str  # YAML text of the run
    class_names: list[str]


def write_folder(
    folder: Path, state: Mapping[str, Tensor], facts: Mapping[str, Any], card: str
) -> None:
    """Write a folder. If it exists, its three files are replaced and others are kept.

    Args:
        folder: the folder to write
        state: the network's tensors
        facts: JSON values for config.json; `read_exported_folder` reads `run` and `class_names`
        card: the text of README.md

    Raises:
        UserError: the folder holds files of something else, or a file cannot be written.
    """
    check_target(folder)
    data = to_safetensors(state)
    facts = {**facts, "weights": {"file": WEIGHTS, "sha256": digest(data)}}
    write_text(folder / CARD, card)
    write_atomic(folder / WEIGHTS, data)
    write_text(folder / CONFIG, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")


def check_target(folder: Path) -> None:
    """Raise UserError if an export into this folder would replace files that nlnet did not write.

    The files of an export, also of one that was interrupted, are replaced.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a folder with --out")
    found = [name for name in (CONFIG, CARD) if (folder / name).exists()]
    if not found or ((folder / WEIGHTS).exists() and found == [CARD]):
        return
    if found == [CARD] or "nlnet" not in _read_json(folder / CONFIG):
        raise UserError(
            f"{folder}: holds {' and '.join(found)} of something else; name another folder with "
            "--out, or remove them"
        )


def read_exported_folder(folder: Path) -> _ExportedFolder:
    """Read what `write_folder` wrote.

    Raises:
        DamagedFile: the weights are not those that were exported.
        UserError: the folder is no export.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(
            f"{folder}: is a folder without {CONFIG}; name a checkpoint file, for instance best.pt "
            "of a run, or a folder of tools/export.py --to safetensors"
        )
    facts = _read_json(path)
    try:
        run, names = str(facts["run"]), [str(name) for name in facts["class_names"]]
        expected = str(facts["weights"]["sha256"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: is not a config of nlnet (no {error}); {REMEDY}") from error
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise UserError(f"{weights}: no such file; {REMEDY}, or copy the whole folder")
    data = read_verified(weights)
    if digest(data) != expected:
        raise DamagedFile(
            f"{weights}: is damaged, its SHA-256 is not the one in {CONFIG}; {REMEDY}"
        )
    return _ExportedFolder(read_safetensors(data, weights), run, names)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); {REMEDY}") from error
    return found if isinstance(found, dict) else {}
