"""Published blocks, compared number for number with ours through their presets and key maps.

A golden file describes one block of a code base: its settings, the names and shapes of its
parameters, the rule that fills them, the input, the first numbers of the output. NLNET_BLOCKS names
the folder of the golden files; without it, ../shared/blocks beside the repository is used.
"""

import json
import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nlnet.errors import UserError
from nlnet.weights.blocks.all import published_block
from tests.weights.test_parity import parameter

Golden = dict[str, Any]
REFUSED = {("SHI-Labs/Cross-Scale-Non-Local-Attention", "CrossScaleAttention")}


def folder() -> Path:
    root = Path(__file__).parents[2]
    return Path(os.environ.get("NLNET_BLOCKS", root.parent / "shared" / "blocks"))


def cases() -> list[Any]:
    """One case per file below the folder."""
    paths = sorted(folder().rglob("*.json"))
    return [pytest.param(path, id=path.relative_to(folder()).as_posix()) for path in paths]


def value(name: str, shape: list[int], kind: str) -> Tensor:
    """A parameter by the rule of the golden files."""
    if kind == "constant":
        return torch.full(shape, 1e-4, dtype=torch.float64)
    if kind == "scalar":
        rng = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFFFFFF)
        return torch.as_tensor(rng.uniform(0.5, 1.5, shape))
    return parameter(name, shape, kind)


def settings_of(golden: Golden) -> dict[str, Any]:
    """The keywords of the constructor, and how often the block was applied.

    The number is no keyword of the reference; a file has it beside the settings or in the formula.
    """
    settings = dict(golden["settings"])
    noted = re.search(r"recurrence (\d+)", golden.get("notes", ""))
    count = golden.get("recurrence", int(noted[1]) if noted else 1)
    return settings if count == 1 else {"recurrence": count, **settings}


@pytest.mark.skipif("NLNET_BLOCKS" not in os.environ, reason="NLNET_BLOCKS is not set")
def test_the_folder_holds_golden_files():
    assert cases()


@pytest.mark.parametrize("path", cases())
def test_a_published_block_has_the_same_numbers(
    path: Path, record_property: Callable[[str, object], None]
):
    golden = json.loads(path.read_text())
    source, name = golden["source"], golden["class"]
    if (source.split("@")[0], name) in REFUSED:
        with pytest.raises(UserError, match=rf"^class={name} is unknown"):
            published_block(source, name, golden["settings"])
        return
    published = published_block(source, name, settings_of(golden))
    theirs = {key: value(key, shape, kind) for key, shape, kind in golden["params"]}
    block = published.block.double().eval()
    block.load_state_dict(published.import_state(theirs), strict=True)
    x = torch.from_numpy(np.random.RandomState(0).standard_normal(golden["input_shape"]))
    with torch.no_grad():
        z = block(x)
    assert list(z.shape) == golden["output_shape"]
    first = golden["output"]
    got = [*z.flatten()[: len(first)].tolist(), float(z.mean()), float(z.std(correction=0))]
    wanted = [*first, golden["output_mean"], golden["output_std"]]
    difference = float(np.abs(np.subtract(got, wanted)).max() / z.abs().max())
    record_property("float64", difference)
    assert difference <= 1e-9
