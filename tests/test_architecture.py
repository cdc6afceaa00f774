"""The floors of the house: who may import whom, and which library stands in which room."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "nlnet").rglob("*.py"))
LEAVES = {"errors", "clip", "config", "distributed", "cli"}
ROOMS = {"model", "data", "trainer"}

# Room -> the leaves that its files may import; `build.py` may import config as well.
MAY_IMPORT = {
    "errors": set(),
    "clip": set(),
    "config": {"errors"},
    "distributed": {"errors"},
    "cli": {"errors", "config", "distributed"},
    "model": {"errors"},
    "data": {"errors", "clip"},
    "trainer": {"errors", "clip", "distributed"},
}
BUILDERS_MAY_IMPORT = {"config", "distributed"}

# Library -> the only files that may import it.
DOORS = {
    "av": {"nlnet/data/decoding.py"},
    "torchvision.transforms": {"nlnet/data/transforms.py"},
    "hydra": {"nlnet/config.py", "nlnet/cli.py"},
    "omegaconf": {"nlnet/config.py", "nlnet/cli.py"},
    "torch.utils.tensorboard": {"nlnet/trainer/logger.py"},
    "tensorboard": set(),
    "pytorchvideo": {"nlnet/model/pytorchvideo.py"},
}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            module = node.module or ""
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    return path.relative_to(ROOT / "nlnet").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_arrow_points_up_or_to_a_sibling(path: Path):
    here = room(path)
    if here == "__init__":
        assert list(imports(path)) == []
        return
    allowed = MAY_IMPORT[here] | {here}
    if path.name == "build.py":
        allowed |= BUILDERS_MAY_IMPORT
    for name in imports(path):
        words = name.split(".")
        if words[0] == "nlnet" and len(words) > 1 and words[1] in LEAVES | ROOMS:
            assert words[1] in allowed, f"{path.relative_to(ROOT)} imports {name}"


def test_there_is_no_circle():
    graph = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): {
            name for name in imports(path) if name.startswith("nlnet.")
        }
        for path in FILES
    }

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail, name])
        for target in graph.get(name, ()):
            if target in graph:
                visit(target, (*trail, name))

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("library", DOORS)
def test_each_library_has_its_door(library: str):
    users = {
        path.relative_to(ROOT).as_posix()
        for path in FILES
        for name in imports(path)
        if name == library or name.startswith(f"{library}.")
    }
    assert users <= DOORS[library]


def test_every_knob_is_read():
    """A field of the config that no builder and no tool reads is a dead knob."""
    readers = [*(ROOT / "nlnet").rglob("build.py"), *(ROOT / "tools").glob("*.py")]
    text = "\n".join(path.read_text() for path in readers)
    attributes = {
        node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)
    }
    tree = ast.parse((ROOT / "nlnet" / "config.py").read_text())
    fields = {
        node.target.id
        for cls in tree.body
        if isinstance(cls, ast.ClassDef) and cls.name not in ("StageKernels", "StageFrames")
        for node in cls.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    assert fields, "no field was found"
    assert fields - attributes == set()
