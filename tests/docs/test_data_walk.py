"""The commands of docs/data.md go from each data set's official files to its first batch."""

import runpy
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from nlnet.cli.choices import CONFIG_DIR
from nlnet.cli.compose import to_run
from nlnet.cli.words import prepare_words
from nlnet.config import register_schemas
from nlnet.data.index.manifest import read_manifest_rows
from nlnet.data.prepare.formats.all import DATA_SETS
from nlnet.jobs.inspect_data import inspect_data
from tests.data.frame_folders import extract_frames
from tests.data.prepare.test_formats import CASES, write
from tests.test_documentation import DOCS, commands

ROOT = Path(__file__).parents[2]
SMALL = ("clips=2", "data.batch_size=2", "data.clip.num_frames=4", "data.clip.frame_stride=1")
FIRST_BATCH = "tools/inspect_data.py"


def walks() -> dict[str, list[list[str]]]:
    """The words of the two commands of each data set, by its name."""
    found: dict[str, list[list[str]]] = {}
    name = ""
    for command in commands(DOCS / "data.md"):
        words = shlex.split(command)[1:]
        if words[0] == "tools/prepare.py" and words[1] in DATA_SETS and "--resize" not in words:
            name = words[1]
            found[name] = [words]
        elif words[0] == FIRST_BATCH:
            found[name].append(words)
    return found


WALKS = walks()


def official_files(name: str, root: Path, make: Callable[[Path], object]) -> None:
    """Annotations in the official form, and videos that decode at the places that they name."""
    files, videos, _, _ = CASES[name]
    write(root, files)
    for video in videos:
        path = root / video
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)


def test_every_data_set_has_a_walk():
    assert WALKS.keys() | {"kinetics600", "kinetics700"} == DATA_SETS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in WALKS if name != "folder"])
def test_from_the_official_files_to_the_first_batch(
    name: str, tmp_path: Path, video_file, monkeypatch: pytest.MonkeyPatch
):
    clip = video_file("clip.mp4", num_frames=12)
    root = tmp_path / "data"
    number = 0

    def make(path: Path) -> None:
        nonlocal number
        if name == "jester":  # as it is published
            extract_frames(clip, path.with_suffix(""), "{:05}.jpg")
        else:
            number += 1
            path.write_bytes(clip.read_bytes() + b"\0\0\0\x09free" + bytes([number]))

    official_files(name, root, make)
    if name == "hmdb51":  # the page takes the second split
        for path in root.rglob("*_test_split1.txt"):
            shutil.copy(path, path.with_name(path.name.replace("split1", "split2")))
    folder = "my_lists" if name == "list" else f"/data/{name}"
    prepare, inspect = ([w.replace(folder, str(root)) for w in words] for words in WALKS[name])
    monkeypatch.setattr(sys, "argv", [*prepare, "--workers", "0"])
    runpy.run_path(str(ROOT / "tools" / "prepare.py"), run_name="prepare")["main"]()
    (manifest,) = root.glob("*.parquet")
    _, rows = read_manifest_rows(manifest)
    assert any(row.split == "train" and row.facts.status == "ok" for row in rows)
    register_schemas()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        run = to_run(compose("inspect_data", overrides=prepare_words([*inspect[1:], *SMALL])))
    with Image.open(inspect_data(run, tmp_path)) as picture:
        assert picture.size[1] > 100
