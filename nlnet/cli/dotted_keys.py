"""Configurations as flat mappings. This module imports nothing that takes time to load."""

from collections.abc import Mapping
from typing import Any


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one mapping with dotted keys."""
    if not isinstance(tree, Mapping):
        return {prefix[:-1]: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(flatten(value, f"{prefix}{key}."))
    return flat
