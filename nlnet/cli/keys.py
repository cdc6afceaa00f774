"""The keys of a run and their types, read from the dataclasses of nlnet.config."""

from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from nlnet.config import RunConfig

# String keys that hold a path: a leading ~ is the home folder.
PATH_KEYS = (
    *("data.root", "data.train", "data.val", "data.test", "data.videos", "data.classes"),
    *("weights", "json", "out", "hydra.run.dir", "hydra.sweep.dir"),
)
SCALARS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
LISTS = {
    str: "a list of names, such as [a,b]",
    int: "a list of whole numbers, such as [1,2]",
    float: "a list of numbers, such as [0.5,1]",
    bool: "a list, such as [true,false]",
}


@dataclass(frozen=True)
class Key:
    """A key, such as data.clip.num_frames, and what its value may be."""

    name: str
    type: Any  # int, list[int], a config class, ...
    optional: bool  # null is a value
    owner: type  # the config class that declares the key

    @property
    def is_config(self) -> bool:
        """Whether the key holds keys of its own instead of a value."""
        return is_dataclass(self.type)

    def wanted(self) -> str:
        """What the value must be, in words."""
        if get_origin(self.type) is list:
            words = LISTS.get(get_args(self.type)[0], "a list")
        else:
            words = SCALARS.get(self.type, "of another type")
        return f"{words}, or null" if self.optional else words


def run_keys(root: type = RunConfig) -> dict[str, Key]:
    """The keys of a tool's config class, with their full names.

    Where a key may hold several kinds of a config class (its subclasses), the keys of all of them.
    """
    found: dict[str, Key] = {}
    for key in _walk(root, ""):
        found.setdefault(key.name, key)
    return found


def every_key() -> dict[str, Key]:
    """The keys of all tools."""
    found = run_keys()
    for tool in RunConfig.__subclasses__():
        found = run_keys(tool) | found
    return found


def _walk(config: type, prefix: str) -> Iterator[Key]:
    for name, hint in get_type_hints(config).items():
        type_, optional = _without_none(hint)
        yield Key(prefix + name, type_, optional, config)
        if isinstance(type_, type) and is_dataclass(type_):
            for kind in _kinds(type_):
                yield from _walk(kind, f"{prefix}{name}.")


def _kinds(config: type) -> Iterator[type]:
    """A config class and the classes below it."""
    yield config
    kinds: list[type] = config.__subclasses__()
    for kind in kinds:
        yield from _kinds(kind)


def _without_none(hint: Any) -> tuple[Any, bool]:
    """The type of `X | None`, and whether None is allowed."""
    if get_origin(hint) not in (Union, UnionType):
        return hint, False
    others = [kind for kind in get_args(hint) if kind is not NoneType]
    assert len(others) == 1, f"{hint} has several types"
    return others[0], True
