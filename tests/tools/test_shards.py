"""Training and evaluation from shards: the same as from the files, bit for bit."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nlnet.data.index.manifest import read_manifest_rows
from nlnet.jobs.prepare import run_prepare
from nlnet.runs.quarantine import QUARANTINE

pytestmark = pytest.mark.slow
Tool = Callable[..., object]
SPLITS = ("data.train=manifest.parquet#train", "data.val=manifest.parquet#val")
TEST = "data.test=manifest.parquet#test"


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, momentum and losses, bit for bit."""
    a, b = (torch.load(folder / "last.pt", weights_only=True) for folder in (one, other))
    assert all(torch.equal(value, b["model"][name]) for name, value in a["model"].items())
    torch.testing.assert_close(a["optimizer"]["state"], b["optimizer"]["state"], rtol=0, atol=0)
    history = [checkpoint["progress"]["history"] for checkpoint in (a, b)]
    assert len(history[0]) == 2
    for x, y in zip(*history, strict=True):
        assert (x["train"], x["val"]) == (y["train"], y["val"])


@pytest.fixture(scope="module")
def prepared(few_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(shutil.copytree(few_videos, tmp_path_factory.mktemp("prepared") / "videos"))
    words = {"suspects": None, "clip": None, "workers": 0, "shards": "20KB"}
    run_prepare("folder", root=root, **words)
    return root


def test_training_and_evaluation_are_those_of_the_files(tool: Tool, prepared: Path, tmp_path: Path):
    """Two epochs, resumed in the second one; all shards have several videos."""
    folder = prepared / "manifest.shards"
    words = (*SPLITS, "trainer.save_every_steps=1", "data.num_workers=2")
    for name, root in (("files", prepared), ("shards", folder)):
        done = tool("train", f"data.root={root}", *words, f"name={name}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    files, shards = (tmp_path / "outputs" / name / "train" for name in ("files", "shards"))
    assert_same_run(files, shards)

    for name in ("last.pt", "last.prev.pt"):  # go back by one step
        (shards / name).with_name(f"{name}.sha256").unlink()
    (shards / "last.prev.pt").replace(shards / "last.pt")
    done = tool("train", f"data.root={folder}", *words, "name=shards", cwd=tmp_path)
    assert done.returncode == 0 and "resumes from last.pt" in done.stdout, done.stderr
    assert_same_run(files, shards)

    rows = {}
    for name, root, where in (
        ("files", prepared, "."),
        ("shards", folder, "."),
        ("remote", folder, f"file://{folder}"),
    ):
        done = tool(
            *("eval", f"weights={shards / 'last.pt'}", f"data.root={root}", TEST),
            *(f"data.videos={where}", f"name={name}", "data.num_workers=2"),
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        (path,) = (tmp_path / "outputs" / name).rglob("predictions.csv")
        with path.open(newline="") as file:
            rows[name] = list(csv.DictReader(file))
    assert rows["remote"] == rows["shards"]
    for file, member in zip(rows["files"], rows["shards"], strict=True):
        place = Path(member.pop("video")).relative_to(folder)
        assert place.parts[0].startswith("test-00000") and place.parts[0].endswith(".tar")
        assert prepared.joinpath(*place.parts[1:]) == Path(file.pop("video"))
        assert file == member


def test_a_changed_member_is_replaced_and_named(tool: Tool, prepared: Path, tmp_path: Path):
    """As a broken file is; the quarantine list names shard and member."""
    folder = Path(shutil.copytree(prepared / "manifest.shards", tmp_path / "shards"))
    _, rows = read_manifest_rows(folder / "manifest.parquet")
    row = next(row for row in rows if row.split == "train")
    with (folder / row.shard).open("r+b") as file:
        file.seek(row.offset + 500)
        file.write(bytes(50))
    words = (*SPLITS, "data.max_bad_share=0.2", "data.num_workers=2", "name=changed")
    done = tool("train", f"data.root={folder}", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "outputs/changed/train" / QUARANTINE).open(newline="") as file:
        (listed,) = csv.DictReader(file)
    assert listed["path"] == str(folder / row.path) and "have changed" in listed["cause"]
    (folder / "val-000000.tar").unlink()
    done = tool("train", f"data.root={folder}", *words, "name=missing", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert f"{folder}/val-000000.tar cannot be read (No such file" in done.stderr
