"""The rules of the code base: layers, libraries, configuration, style."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import get_type_hints

import pytest

from nlnet import config

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "nlnet").rglob("*.py"))
SOURCES = sorted([*FILES, *(ROOT / "tools").glob("*.py"), *(ROOT / "scripts").glob("*.py")])
LAYER_2 = {"model", "data", "trainer"}

# Part of nlnet -> the parts that its files may import.
MAY_IMPORT: dict[str, set[str]] = {
    # layer 1
    "errors": set(),
    "clip": set(),
    "demo": set(),
    "files": {"errors"},
    "checks": {"errors"},
    "config": {"errors"},
    "checkpoint": {"errors", "files"},
    "distributed": {"errors", "checks"},
    "runs": {"errors", "clip", "files", "checkpoint", "distributed"},
    "cli": {"errors", "checks", "files", "config", "distributed"},
    # layer 2: model, data and trainer do not import one another
    "model": {"errors", "checks", "numerics"},
    "data": {"errors", "checks", "clip", "files"},
    "trainer": {
        *("errors", "checks", "clip", "files", "checkpoint", "distributed", "runs"),
        "numerics",
    },
    "numerics": {"errors", "files", "runs"},
    # layer 3
    "weights": {"errors", "checks", "files", "checkpoint", "config", "demo", "model"},
}
LAYERS_1_TO_3 = {*MAY_IMPORT}
MAY_IMPORT |= {  # layer 4
    "recognizer": LAYERS_1_TO_3,
    "jobs": LAYERS_1_TO_3 | {"recognizer", "report"},
    "report": LAYERS_1_TO_3 | {"recognizer"},
    "serve": LAYERS_1_TO_3 | {"recognizer", "report"},
    "bench": LAYERS_1_TO_3,
    "__init__": {"recognizer", "model"},
    "__main__": {"cli"},
}
BUILDERS_MAY_IMPORT = {"config", "distributed"}  # besides what their package may
READ_CONFIGS = {"config", "cli", "weights", "recognizer", "jobs", "report", "bench"}

# Library -> the only files or folders that may import it.
IMPORTERS = {
    "av": {
        *("nlnet/data/decoding", "nlnet/data/encoding.py", "nlnet/bench"),
        "nlnet/data/image_encoding.py",
        "nlnet/jobs/doctor/video.py",  # it lists the codecs
        "nlnet/data/prepare/probe.py",  # it reads packets, and takes damaged files
    },
    "fsspec": {"nlnet/data/shards/remote.py"},
    "torchcodec": {"nlnet/data/decoding/torchcodec.py", "nlnet/bench"},
    "torchvision.transforms": {"nlnet/data/transforms.py", "nlnet/data/augmentation"},
    "hydra": {"nlnet/config", "nlnet/cli"},
    "omegaconf": {"nlnet/config", "nlnet/cli"},
    "torch.utils.tensorboard": {"nlnet/runs/logger.py"},
    "tensorboard": set(),
    "jinja2": {"nlnet/report/page.py"},
    "matplotlib": {"nlnet/report/plots.py", "nlnet/report/timeline.py"},
    "onnxruntime": {"nlnet/recognizer/export_graph.py"},
    "starlette": {"nlnet/serve/app.py", "nlnet/serve/guard.py"},
    "uvicorn": {"nlnet/serve/server.py"},
    "safetensors": {"nlnet/weights/safetensors_file.py"},
    "pyarrow": {"nlnet/jobs/features.py", "nlnet/data/index/manifest.py"},
    "triton": {"nlnet/model/non_local/kernels/split_head_kernels.py"},
    "pytorchvideo": {"nlnet/model/pytorchvideo.py", "nlnet/bench"},
}
LONGEST_FILE = 300  # lines
LONGEST_FUNCTION = 60
MOST_PARAMETERS = 10
VAGUE_NAMES = {"helper", "helpers", "util", "utils", "misc", "manager", "common"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Every module that a file imports, at its top or inside a function."""
    names: list[str] = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names += [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(names)


def part(path: Path) -> str:
    """The part of nlnet that a file belongs to."""
    return path.relative_to(ROOT / "nlnet").parts[0].removesuffix(".py")


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


each_file = pytest.mark.parametrize("path", FILES, ids=place)
each_source = pytest.mark.parametrize("path", SOURCES, ids=place)


@each_file
def test_imports_go_down(path: Path):
    here = part(path)
    assert here in MAY_IMPORT, f"{place(path)} is in no layer; add {here} to MAY_IMPORT"
    allowed = MAY_IMPORT[here] | {here}
    if path.name == "build.py":
        allowed |= BUILDERS_MAY_IMPORT
    for name in imports(path):
        words = name.split(".")
        if words[0] == "nlnet" and len(words) > 1 and words[1] in MAY_IMPORT:
            assert words[1] in allowed, f"{place(path)} imports {name}"


def test_no_circle():
    graph = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): {
            name for name in imports(path) if name.startswith("nlnet.")
        }
        for path in FILES
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail, name])
        if name in done:
            return
        for target in graph[name]:
            if target in graph and target != name:
                visit(target, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("library", IMPORTERS)
def test_one_library_one_importer(library: str):
    for path in FILES:
        if any(name == library or name.startswith(f"{library}.") for name in imports(path)):
            allowed = IMPORTERS[library]
            assert any(
                place(path).removesuffix(".py") == entry.removesuffix(".py")
                or place(path).startswith(f"{entry}/")
                for entry in allowed
            ), f"{place(path)} imports {library}"


# Configuration


CONFIGS = {
    name: cls
    for name, cls in vars(config).items()
    if is_dataclass(cls) and not name.startswith("Stage")  # read whole, as mappings
}
SECTIONS = "model|data|optim|schedule|trainer|dist"


@cache
def config_keys() -> frozenset[str]:
    """Every dotted key of a run, of every kind of its parts."""

    def keys(cls: type, prefix: str) -> Iterator[str]:
        for kin in [*cls.__mro__, *cls.__subclasses__()]:
            for name in vars(kin).get("__annotations__", {}):
                yield f"{prefix}{name}"
                inner = get_type_hints(kin)[name]
                if inner in vars(config).values() and is_dataclass(inner):
                    yield from keys(inner, f"{prefix}{name}.")

    return frozenset(key for key in keys(config.RunConfig, "") if "." in key)


@each_file
def test_only_builders_read_configs_and_spell_their_keys(path: Path):
    if part(path) in READ_CONFIGS or path.name == "build.py":
        return
    assert not any(name.startswith("nlnet.config") for name in imports(path))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            spelled = set(re.findall(rf"\b(?:{SECTIONS})(?:\.[a-z0-9_]+)+", node.value))
            assert id(node) in docstrings or not spelled & config_keys(), (
                f"{place(path)}: {spelled}"
            )


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
            case ast.arg(
                annotation=ast.Name(id=name) | ast.Constant(value=str(name))  # tools quote theirs
            ) if name in CONFIGS:
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


def test_every_config_field_is_read():
    """A field of a config that nothing reads from that very config is dead."""
    readers = [
        path
        for path in SOURCES
        if path.name == "build.py"
        or "tools" in path.parts
        or (path in FILES and part(path) in READ_CONFIGS)
    ]
    read = {
        pair
        for path in readers
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef)
        for pair in fields_read(node)
    }
    fields = {
        (name, field)
        for name, cls in CONFIGS.items()
        for field in cls.__annotations__
        if not any(field in vars(above).get("__annotations__", {}) for above in cls.__mro__[1:])
    }
    assert fields, "no field was found"
    assert fields - read == set()


# Style


@each_source
def test_files_and_functions_are_short(path: Path):
    assert len(path.read_text().splitlines()) <= LONGEST_FILE
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{node.name} has {length} lines"
            arguments = node.args
            count = len(arguments.args) + len(arguments.kwonlyargs)
            assert count <= MOST_PARAMETERS or node.name == "__init__", f"{node.name}: {count}"


@each_source
def test_no_reflection_no_swallowed_errors_no_vague_names(path: Path):
    assert not VAGUE_NAMES & set(path.stem.split("_")), place(path)
    for node in ast.walk(tree(path)):
        where = f"{place(path)} line {getattr(node, 'lineno', 0)}"
        match node:
            case ast.Call(func=ast.Name(id="hasattr")):
                raise AssertionError(f"{where}: hasattr")
            case ast.Call(func=ast.Name(id="getattr"), args=[_, _, _]):
                raise AssertionError(f"{where}: getattr with a default")
            case ast.ExceptHandler(type=None) | ast.ExceptHandler(type=ast.Name(id="Exception")):
                raise AssertionError(f"{where}: catches every error")
            case ast.Global():
                raise AssertionError(f"{where}: changes a variable of the module")
            case ast.Name(id="MethodType"):
                raise AssertionError(f"{where}: replaces a method")
            case ast.keyword(arg="weights_only", value=ast.Constant(value=False)):
                raise AssertionError(f"{where}: runs what a pickle holds")
            case ast.ClassDef(name=name) if VAGUE_NAMES & set(re.findall(r"[A-Z][a-z]+", name)):
                raise AssertionError(f"{where}: class {name}")


def test_packages_keep_their_sizes():
    def lines(paths: list[Path]) -> int:
        return sum(len(path.read_text().splitlines()) for path in paths)

    model = [path for path in FILES if part(path) == "model" and "non_local" not in path.parts]
    assert lines(model) < 1200
    tools = list((ROOT / "tools").glob("*.py"))
    assert lines(tools) <= 45 * len(tools)


def test_two_different_functions_never_share_a_name():
    """Public functions and classes at the top of two files of nlnet."""
    places: dict[str, list[str]] = {}
    for path in FILES:
        for node in tree(path).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(place(path))
    shared = {name: files for name, files in places.items() if len(files) > 1}
    assert shared == {}


# Imports that take seconds


def run_python(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_slow_libraries_are_imported_where_they_are_used():
    """All of nlnet, their importers and the benchmarks left out, imports neither of them."""
    run_python(
        "import pkgutil, importlib, sys, nlnet\n"
        "names = [m.name for m in pkgutil.walk_packages(nlnet.__path__, 'nlnet.')]\n"
        "importers = {'nlnet.model.pytorchvideo', 'nlnet.data.transforms'}\n"
        "importers.add('nlnet.model.non_local.kernels.split_head_kernels')\n"
        "importers |= {f'nlnet.data.augmentation.{n}' for n in ('operations', 'changes')}\n"
        "assert importers < set(names)\n"
        "left_out = ('nlnet.bench', 'nlnet.tools', 'nlnet.__main__')\n"
        "names = [n for n in names if n not in importers and not n.startswith(left_out)]\n"
        "[importlib.import_module(n) for n in names]\n"
        "from nlnet.config import ResNetConfig\n"
        "from nlnet.model.build import build_model\n"
        "build_model(ResNetConfig(depth=14, width=8), 3)\n"
        "slow = {'pytorchvideo', 'torchvision', 'triton'}\n"
        "assert not slow & {n.split('.')[0] for n in sys.modules}\n"
        "assert len(names) > 20\n"
    )


def test_importing_nlnet_is_light():
    run_python(
        "import sys, nlnet\n"
        "nlnet.load, nlnet.__version__\n"
        "slow = {'torch', 'torchvision', 'hydra', 'omegaconf', 'pytorchvideo', 'av'}\n"
        "assert not slow & {n.split('.')[0] for n in sys.modules}\n"
    )
