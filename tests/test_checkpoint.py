"""What a checkpoint file contains, and which files are refused."""

import os
import pickle
import re
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

import nlnet
from nlnet.checkpoint import (
    Checkpoint,
    EpochRecord,
    Progress,
    Provenance,
    Training,
    current_provenance,
    read_checkpoint,
    write_checkpoint,
)
from nlnet.errors import UserError

MODEL = {"backbone.conv1.weight": torch.arange(6.0).reshape(2, 3)}
RECORD = EpochRecord(
    epoch=1,
    global_step=4,
    seconds=2.0,
    clips_per_second=24.0,
    data_wait=1.5,
    train={"loss": 1.0},
    val={"mean_ap": 20.0, "other": 3.0},
    main="mean_ap",
)
PROGRESS = Progress(
    epoch=1,
    step=2,
    global_step=6,
    best=20.0,
    asked=72,
    bad=1,
    bad_files={"a.mp4": "empty"},
    totals={"loss": 2.5},
    history=[RECORD],
)
PROVENANCE = Provenance("name: x\n", ["a", "b"], "0.2", "2.11", "abc")
TRAINED = Checkpoint(MODEL, PROVENANCE, Training(PROGRESS, "SGD", {"state": {}}, {"scale": 1.0}))


def assert_equal(found: Checkpoint, expected: Checkpoint) -> None:
    assert found.model.keys() == expected.model.keys()
    assert all(torch.equal(found.model[name], value) for name, value in expected.model.items())
    assert found.provenance == expected.provenance
    assert found.training == expected.training
    assert found.average == expected.average


@pytest.mark.parametrize(
    "checkpoint",
    [
        TRAINED,
        Checkpoint(MODEL, Provenance(source="x.pkl", format="caffe2", frame_kernels=False)),
        Checkpoint(MODEL, Provenance()),
        Checkpoint(MODEL, PROVENANCE, TRAINED.training, {"n_averaged": torch.tensor(3)}),
    ],
)
def test_reading_returns_what_was_written(checkpoint: Checkpoint, tmp_path: Path):
    write_checkpoint(tmp_path / "a.pt", checkpoint)
    assert_equal(read_checkpoint(tmp_path / "a.pt"), checkpoint)


def saved(tmp_path: Path) -> dict[str, Any]:
    write_checkpoint(tmp_path / "a.pt", TRAINED)
    return torch.load(tmp_path / "a.pt", weights_only=True)


def test_the_keys_on_disk_are_those_of_the_first_release(tmp_path: Path):
    """Records have a new key, `main`, and progress the number of skipped steps."""
    first = Path(__file__).parent / "fixtures" / "first_release" / "run" / "last.pt"
    old, new = torch.load(first, weights_only=True), saved(tmp_path)
    assert list(new) == list(old)
    assert list(new["provenance"]) == list(old["provenance"])
    added = {"skipped", "skipped_in_a_row"}
    assert [key for key in new["progress"] if key not in added] == list(old["progress"])
    records = [content["progress"]["history"][0].keys() for content in (new, old)]
    assert records[0] - records[1] == {"main"} and not records[1] - records[0]


def test_an_old_record_has_its_first_metric_as_the_main_one(tmp_path: Path):
    content = saved(tmp_path)
    del content["progress"]["history"][0]["main"]
    not_evaluated = {**content["progress"]["history"][0], "val": {}}
    content["progress"]["history"].append(not_evaluated)
    torch.save(content, tmp_path / "old.pt")
    training = read_checkpoint(tmp_path / "old.pt").training
    assert training is not None
    assert [record.main for record in training.progress.history] == ["mean_ap", None]
    assert [record.score for record in training.progress.history] == [20.0, None]


@pytest.mark.parametrize("key", ["progress", "optimizer", "scaler", "provenance"])
def test_entries_of_another_version_are_refused(key: str, tmp_path: Path):
    content = saved(tmp_path)
    if key == "progress":
        content["progress"]["invented"] = 1
    elif key == "provenance":
        content["provenance"] = 3
    else:
        del content[key]
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt: is not a checkpoint of this version") as error:
        read_checkpoint(tmp_path / "other.pt")
    assert "\n" not in str(error.value)


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("content", ["pickle", "archive", "text", "empty", "list", "no_model"])
def test_other_files_are_refused_and_not_executed(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pt"
    files = {"pickle": pickle.dumps(Malicious(), protocol=2), "text": b"hello\n", "empty": b""}
    objects = {"archive": {"model": Malicious()}, "list": [1, 2], "no_model": {"x": 1}}
    if content in files:
        path.write_bytes(files[content])
    else:
        torch.save(objects[content], path)
    refused = r"a\.pt: (not a safe or whole PyTorch file|is not a checkpoint of nlnet)"
    with pytest.raises(UserError, match=refused) as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "executed").exists()


def test_provenance_names_versions_and_the_commit_of_the_working_tree():
    root = Path(nlnet.__file__).parents[1]
    command = ["git", "-C", str(root), "rev-parse", "--verify", "-q", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = asdict(current_provenance("name: x\n", ["a", "b"]))
    assert (found["config"], found["class_names"]) == ("name: x\n", ["a", "b"])
    assert (found["nlnet"], found["torch"]) == (nlnet.__version__, str(torch.__version__))
    assert found["commit"] == (done.stdout.strip() or None)


def test_only_this_module_loads_and_saves_with_torch():
    """No other code can load a pickle without weights_only=True, or skip the digest."""
    root = Path(nlnet.__file__).parent
    calls = {
        (path.relative_to(root).as_posix(), name)
        for path in root.rglob("*.py")
        for name in re.findall(r"torch\.(load|save)\((?!weights_only)", path.read_text())
    }
    assert calls == {("checkpoint.py", "load"), ("checkpoint.py", "save")}
    call = (root / "checkpoint.py").read_text().split("torch.load(io.BytesIO")[1]
    assert "weights_only=True" in call.splitlines()[0]
