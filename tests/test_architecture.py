"""The floors of the house: who may import whom, and which library stands in which room."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import get_type_hints

import pytest

from nlnet import config

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "nlnet").rglob("*.py"))
# Part of nlnet -> the parts that its files may import. Parts of a lower layer stand first.
MAY_IMPORT = {
    # layer 1
    "errors": set(),
    "clip": set(),
    "demo": set(),
    "checks": {"errors"},
    "files": {"errors"},
    "checkpoint": {"errors", "files"},
    "config": {"errors"},
    "distributed": {"errors", "checks"},
    "runs": {"errors", "clip", "distributed", "files", "checkpoint"},
    "cli": {"errors", "checks", "files", "config", "distributed"},
    # layer 2: model, data and trainer do not import one another
    "model": {"errors", "checks"},
    "data": {"errors", "checks", "clip"},
    "trainer": {"errors", "checks", "clip", "distributed", "files", "checkpoint", "runs"},
    # layer 3
    "weights": {"errors", "checks", "files", "checkpoint", "config", "demo", "model"},
    # layer 4
    "recognizer": {
        *("errors", "checks", "clip", "config", "distributed", "cli", "demo"),
        *("model", "data", "trainer", "weights"),
    },
    "jobs": {
        *(
            "errors",
            "clip",
            "checks",
            "files",
            "checkpoint",
            "config",
            "distributed",
            "runs",
            "cli",
        ),
        *("demo", "model", "data", "trainer", "weights", "recognizer", "report"),
    },
    "report": {
        *("errors", "clip", "checks", "files", "checkpoint", "config", "runs", "cli"),
        *("model", "data", "trainer", "weights", "recognizer"),
    },
    "__init__": {"recognizer"},
    "__main__": {"cli"},
    "bench": {
        *("errors", "checks", "clip", "config", "distributed", "cli", "runs"),
        *("model", "data", "trainer"),
    },
}
BUILDERS_MAY_IMPORT = {"config", "distributed"}

# Library -> patterns of the only files that may import it.
DOORS = {
    "av": {
        *("nlnet/data/decoding/*", "nlnet/data/encoding.py", "nlnet/bench/steps/inputs.py"),
        "nlnet/jobs/doctor/video.py",  # it lists the codecs
    },
    "torchvision.transforms": {"nlnet/data/transforms.py"},
    "hydra": {"nlnet/config*", "nlnet/cli/*"},
    "omegaconf": {"nlnet/config*", "nlnet/cli/*"},
    "torch.utils.tensorboard": {"nlnet/runs/logger.py"},
    "tensorboard": set(),
    "jinja2": {"nlnet/report/page.py"},
    "matplotlib": {"nlnet/report/plots.py", "nlnet/report/timeline.py"},
    "onnxruntime": {"nlnet/recognizer/export_graph.py"},
    "safetensors": {"nlnet/weights/safetensors_file.py"},
    "pyarrow": {"nlnet/jobs/features.py"},
    "pytorchvideo": {"nlnet/model/pytorchvideo.py", "nlnet/bench/peer.py"},
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
    assert here in MAY_IMPORT, f"{path.relative_to(ROOT)} is in no layer"
    allowed = MAY_IMPORT[here] | {here}
    if path.name == "build.py":
        allowed |= BUILDERS_MAY_IMPORT
    for name in imports(path):
        words = name.split(".")
        if words[0] == "nlnet" and len(words) > 1 and words[1] in MAY_IMPORT:
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
    strangers = {
        user for user in users if not any(fnmatch(user, pattern) for pattern in DOORS[library])
    }
    assert strangers == set()


CONFIGS = {
    name: cls
    for name, cls in vars(config).items()
    if is_dataclass(cls) and not name.startswith("Stage")  # read whole, as mappings
}


def owner(cls: type, name: str) -> type | None:
    """The class that declares a field of a config, of one above it or of a kind of it."""
    family = [*cls.__mro__, *cls.__subclasses__()]
    return next((kin for kin in family if name in vars(kin).get("__annotations__", {})), None)


def kind(node: ast.AST, kinds: dict[str, type]) -> type | None:
    """The config that an expression is, where variables are of the given kinds."""
    if isinstance(node, ast.Name):
        return kinds.get(node.id)
    if isinstance(node, ast.Attribute) and (above := kind(node.value, kinds)) is not None:
        declared = owner(above, node.attr)
        found = None if declared is None else get_type_hints(declared)[node.attr]
        return found if found in CONFIGS.values() else None
    return None


def fields_read(function: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    """(config, field) of each that a function reads from its annotated arguments."""
    kinds: dict[str, type] = {}
    for node in ast.walk(function):
        match node:
            case ast.arg(annotation=ast.Name(id=name) | ast.Constant(value=name)) if (
                name in CONFIGS
            ):
                kinds[node.arg] = CONFIGS[name]
            case ast.AnnAssign(target=ast.Name(id=variable), annotation=ast.Name(id=name)):
                kinds |= {variable: CONFIGS[name]} if name in CONFIGS else {}
            case ast.Assign(targets=[ast.Name(id=variable)], value=value):
                found = kind(value, kinds)
                kinds |= {} if found is None else {variable: found}
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and (cls := kind(node.value, kinds)) is not None:
            declared = owner(cls, node.attr)
            if declared is not None:
                yield declared.__name__, node.attr


def test_every_knob_is_read():
    """A field of a config that no builder and no tool reads, from that very config, is dead."""
    readers = [*(ROOT / "nlnet").rglob("build.py"), *(ROOT / "tools").glob("*.py")]
    readers += [p for part in ("bench", "jobs") for p in (ROOT / "nlnet" / part).rglob("*.py")]
    read = {
        pair
        for path in readers
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        for pair in fields_read(node)
    }
    knobs = {
        (name, knob)
        for name, cls in CONFIGS.items()
        for knob in cls.__annotations__
        if not any(knob in vars(above).get("__annotations__", {}) for above in cls.__mro__[1:])
    }
    assert knobs, "no field was found"
    assert knobs - read == set()


def test_slow_libraries_wait_until_they_are_used():
    """Not even all of nlnet, the two doors left out, nor building a network imports them."""
    program = (
        "import pkgutil, importlib, sys, nlnet\n"
        "names = [m.name for m in pkgutil.walk_packages(nlnet.__path__, 'nlnet.')]\n"
        "doors = {'nlnet.model.pytorchvideo', 'nlnet.data.transforms'}\n"
        "assert doors < set(names)\n"
        "doors |= {n for n in names if n.startswith('nlnet.bench')}  # it measures what they do\n"
        "[importlib.import_module(n) for n in names if n not in doors]\n"
        "from nlnet.config import ResNetConfig\n"
        "from nlnet.model.build import build_model\n"
        "build_model(ResNetConfig(depth=14, width=8), 3)\n"
        "slow = {'pytorchvideo', 'torchvision'}\n"
        "assert not slow & {n.split('.')[0] for n in sys.modules}\n"
        "assert len(names) > 20\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
