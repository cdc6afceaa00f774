"""Export of trained weights: complete files or none, and a folder with equal scores."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import nlnet
from nlnet.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from nlnet.demo import CHECKPOINT, VIDEOS
from nlnet.errors import UsageError, UserError
from nlnet.files import digest
from nlnet.jobs.export import default_target, export
from nlnet.weights.folder import CARD, CONFIG, WEIGHTS
from tests.report.runs import CLASSES, evaluated_run, made_up_scores


def test_an_exported_folder_gives_equal_scores(tmp_path: Path):
    """Bit for bit: both networks have the same tensors, and make the same calls."""
    folder = export("demo", "safetensors", out=tmp_path / "hub", license="cc-by-4.0")
    first, second = (nlnet.load(source, device="cpu") for source in ("demo", folder))
    assert first.class_names == second.class_names
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], tensor), name
    for video in VIDEOS:
        assert torch.equal(first.scores(video), second.scores(video))

    facts = json.loads((folder / CONFIG).read_text())
    assert facts["class_names"] == ["different", "same"]
    assert facts["input"]["shape"] == ["batch", 3, 8, 64, 64]
    assert facts["run"] == read_checkpoint(CHECKPOINT).provenance.config
    assert facts["weights"]["sha256"] == digest((folder / WEIGHTS).read_bytes())
    card = (folder / CARD).read_text()
    assert card.startswith("---\nlibrary_name: nlnet\n") and "\nlicense: cc-by-4.0\n" in card
    assert "python tools/eval.py weights=demo" in card
    again = export(str(folder), "safetensors", out=tmp_path / "again")  # of an exported folder
    assert (again / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()


def test_the_card_has_the_accuracy_of_the_evaluation_of_this_checkpoint(tmp_path: Path):
    scores = made_up_scores(tmp_path)
    run = evaluated_run(tmp_path / "run", tmp_path, scores, "run")
    best = run / "train" / "best.pt"
    demo = read_checkpoint(CHECKPOINT)
    write_checkpoint(best, Checkpoint(demo.model, demo.provenance))
    write_checkpoint(best.with_name("last.pt"), Checkpoint(demo.model, demo.provenance))

    folder = export(str(best), "safetensors")
    assert folder == best.with_name("best_safetensors")
    top1 = json.loads((run / "eval" / "metrics.json").read_text())["top1"]
    found = json.loads((folder / CONFIG).read_text())["accuracy"]["top1"]
    assert np.isclose(100 * found["value"], top1) and found["low"] < found["value"] < found["high"]
    card = (folder / CARD).read_text()
    assert f"| Top-1 | {top1:.2f} % | {100 * found['low']:.2f} % to" in card
    assert f"{len(scores.paths)} videos of the split `val`" in card
    assert len(CLASSES) != 2  # the made up scores are those of another network; the path counts

    other = export(str(best.with_name("last.pt")), "safetensors")
    assert "No evaluation was found" in (other / CARD).read_text()
    assert "accuracy" not in json.loads((other / CONFIG).read_text())


def test_a_network_that_differs_is_not_written(tmp_path: Path):
    """Not a number is never equal to the network's output."""
    demo = read_checkpoint(CHECKPOINT)
    demo.model["head.fc.bias"].fill_(torch.nan)
    write_checkpoint(tmp_path / "nan.pt", Checkpoint(demo.model, demo.provenance))
    before = set(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"^[^\n]*differ by nan[^\n]*nothing was written$"):
        export(str(tmp_path / "nan.pt"), "torch_export")
    assert set(tmp_path.iterdir()) == before


def test_mistakes_are_one_line(tmp_path: Path):
    with pytest.raises(UsageError, match=r"^--to=tflite [^\n]*onnx, torch_export, safetensors$"):
        export("demo", "tflite")
    with pytest.raises(UserError, match=r"^gone\.pt: no such file[^\n]*$"):
        export("gone.pt", "onnx")
    with pytest.raises(UserError, match=r"^[^\n]*gone: no such folder[^\n]*--out$"):
        export("demo", "onnx", out=tmp_path / "gone" / "x.onnx")
    with pytest.raises(UserError, match=r"^[^\n]*: is a folder[^\n]*--out$"):
        export("demo", "onnx", out=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^[^\n]*file: is a file[^\n]*--out$"):
        export("demo", "safetensors", out=tmp_path / "file")


def test_the_output_is_beside_a_file_and_here_for_a_public_name(tmp_path: Path):
    (tmp_path / "best.pt").write_text("")
    assert default_target(str(tmp_path / "best.pt"), "onnx") == tmp_path / "best.onnx"
    assert default_target(str(tmp_path), "onnx") == tmp_path.with_name(f"{tmp_path.name}.onnx")
    assert default_target("caffe2/i3d_8x8", "safetensors") == Path("i3d_8x8_safetensors")
    assert default_target("demo", "torch_export") == Path("demo.pt2")
