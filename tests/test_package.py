"""The package as users install it: a wheel, built without a network, runs from any folder."""

import json
import os
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import nlnet

ROOT = Path(__file__).parents[1]
SOURCES = ("nlnet", "configs", "tools", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md")
Nlnet = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of the sources, built in a copy so that the checkout gets no build folder."""
    copy, out = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    for name in (*SOURCES, "LICENSE"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--no-index", "--wheel-dir", str(out), str(copy)], check=True)
    return next(out.glob("nlnet-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory) -> Path:
    """A fresh environment with the wheel, which also sees the libraries installed here."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-index", str(wheel)], check=True)
    # Folders that a .pth file adds come after the environment's own, and .pth files in them (that
    # of an editable nlnet) are not read.
    packages = next((folder / "lib").glob("python*/site-packages"))
    (packages / "libraries.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return folder


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Path:
    """The folder that the command runs in: not the checkout, and empty at first."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def run_nlnet(installed: Path, elsewhere: Path) -> Nlnet:
    """Run the console command: (*words) -> the process, which has ended."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["OMP_NUM_THREADS"] = "1"

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(installed / "bin" / "nlnet"), *words],
            cwd=elsewhere,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
        )

    return run


def test_the_wheel_holds_every_config_and_tool(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("configs", "tools"):
        files = [path for path in (ROOT / folder).rglob("*") if path.suffix in (".yaml", ".py")]
        assert files
        assert {f"nlnet/{path.relative_to(ROOT)}" for path in files} <= names
    demo = {"nlnet/demo/demo.pt", "nlnet/demo/same.mp4", "nlnet/demo/different.mp4"}
    assert demo <= names
    assert "nlnet/py.typed" in names and "nlnet/model/resnet3d.py" in names
    assert not any(name.startswith(("configs/", "tools/", "tests/")) for name in names)


def test_the_command_lists_its_verbs(run_nlnet: Nlnet):
    for words in ([], ["--help"]):
        done = run_nlnet(*words)
        assert done.returncode == 0, done.stderr
        for verb in ("train", "eval", "predict", "attend", "describe", "convert", "benchmark"):
            assert f"\n  {verb} " in done.stdout
    assert run_nlnet("--version").stdout == f"nlnet {nlnet.__version__}\n"
    done = run_nlnet("trian")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "did you mean nlnet train" in done.stderr


def test_the_command_describes_a_network(run_nlnet: Nlnet):
    done = run_nlnet("describe", "+experiment=c2d_nl1")
    assert done.returncode == 0, done.stderr
    assert "non-local" in done.stdout


def test_the_command_predicts_without_a_checkpoint_of_the_user(run_nlnet: Nlnet):
    done = run_nlnet("predict", "demo")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    lines = done.stdout.splitlines()
    assert [lines[i].split()[-1] for i in (1, 4)] == ["same", "different"]


def test_the_command_trains_and_evaluates(
    run_nlnet: Nlnet, elsewhere: Path, video_file: Callable[..., Path]
):
    """Two ranks are started from the installed file; the folders are those of tools/*.py."""
    for split in ("train", "val"):
        for name in "ab":
            for i in range(2):
                video = video_file(f"videos/{split}/{name}/{i}.mp4", num_frames=16)
    root = video.parents[2]
    words = ["+experiment=folder", "model=c2d_tiny", "non_local=none", f"data.root={root}"]
    words += ["data.clip.num_frames=4", "data.clip.frame_stride=2", "data.clip.crop_size=32"]
    words += ["data.augment.short_side=[32,40]", "data.val_views.crop_size=32"]
    words += ["data.test_views.crop_size=32", "data.test_views.short_side=32"]
    words += ["data.batch_size=4", "data.num_workers=0", "dist.device=cpu"]
    length = ["trainer.epochs=null", "trainer.max_steps=2", "schedule.warmup=0"]
    done = run_nlnet("train", *words, *length, "dist.num_procs=2")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    folder = elsewhere / "outputs" / "folder"
    assert (folder / "train" / "best.pt").exists()
    done = run_nlnet("eval", f"weights={folder / 'train' / 'best.pt'}")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert json.loads((folder / "eval" / "metrics.json").read_text())["videos"] == 4


def test_the_files_come_from_the_wheel(installed: Path):
    program = "import nlnet; from nlnet.cli.choices import CONFIG_DIR, TOOL_DIR\n"
    program += "print(nlnet.__file__, CONFIG_DIR, TOOL_DIR)"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(installed / "bin" / "python"), "-c", program],
        cwd=installed,
        env=environment,
        capture_output=True,
        text=True,
    )
    places = done.stdout.split()
    assert len(places) == 3, done.stderr
    assert all(place.startswith(str(installed)) for place in places)
