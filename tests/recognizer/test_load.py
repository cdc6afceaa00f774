"""`nlnet.load`: a checkpoint alone is enough to classify a video, exactly as evaluation does."""

import csv
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

import nlnet
from nlnet.cli.choices import CONFIG_DIR
from nlnet.cli.compose import compose_run
from nlnet.data.build import build_eval_loader
from nlnet.errors import UserError
from nlnet.model.build import build_model
from nlnet.recognizer.load import find_settings, load_recognizer
from nlnet.trainer.metrics import VideoScores
from nlnet.weights.files import WeightFile, read_weight_file

Tool = Callable[..., subprocess.CompletedProcess[str]]


def test_importing_nlnet_loads_no_large_library():
    program = (
        "import sys, nlnet\n"
        "print({'torch', 'torchvision', 'hydra', 'omegaconf', 'pytorchvideo'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_scores_equal_those_of_evaluation(trained: Path, few_videos: Path):
    """Bit for bit: a batch holds one video in both, so that both make the same calls."""
    recognizer = nlnet.load(trained / "best.pt", device="cpu")
    assert recognizer.class_names == ("different", "same")
    assert not recognizer.model.training

    run = find_settings(str(trained / "best.pt"), read_weight_file(trained / "best.pt"))
    assert run is not None
    views = run.data.test_views
    views.batch_size = views.num_clips * views.num_crops
    loader = build_eval_loader(
        run.data, "test", views, rank=0, world_size=1, class_names=recognizer.class_names
    )
    scores = VideoScores(torch.from_numpy(loader.index.labels), 2, views.ensemble)
    recognizer.evaluate(loader, scores)
    assert len(loader.index) == 7
    for i, expected in enumerate(scores.probabilities):
        found = recognizer.scores(loader.index.path(i))
        assert found.dtype == torch.float64 and torch.equal(found, expected)
        assert abs(found.sum() - 1) < 1e-6


def test_scores_equal_those_of_the_tool(
    trained: Path, few_videos: Path, tool: Tool, tmp_path: Path
):
    """To the six digits of predictions.csv, with views that the command line changes."""
    words = (f"weights={trained / 'best.pt'}", "data.test=test", "data.test_views.batch_size=3")
    assert tool("eval", *words, cwd=tmp_path).returncode == 0
    recognizer = nlnet.load(str(trained / "best.pt"), device="cpu")
    with (tmp_path / "outputs" / "smoke" / "eval" / "predictions.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            scores = recognizer.scores(row["video"])
            assert recognizer.class_names[int(scores.argmax())] == row["prediction"]
            assert f"{scores.max():.6f}" == row["score"]


def test_settings_come_from_the_checkpoint_the_preset_or_the_experiment(trained: Path):
    weights = read_weight_file(trained / "best.pt")
    run = find_settings("best.pt", weights)
    assert run is not None and run.name == "smoke" and run.weights == "best.pt"
    assert run.data.test_views == compose_run("smoke").data.test_views
    bare = WeightFile(weights.state)
    for name in ("caffe2/i3d_nl5_8x8", "caffe2/i3d_nonlocal_8x8"):  # the second is a former name
        run = find_settings(name, bare)
        assert run is not None and run.name == "caffe2/i3d_nl5_8x8" and run.weights == name
    assert find_settings(str(trained / "best.pt"), bare) is None


def test_a_file_without_settings_needs_an_experiment(trained: Path, tmp_path: Path, few_videos):
    run = compose_run("smoke")
    torch.manual_seed(0)
    torch.save({"model": build_model(run.model, 2).state_dict()}, tmp_path / "bare.pt")
    with pytest.raises(UserError, match=r"^[^\n]*bare\.pt: holds no settings.*experiment=[^\n]*$"):
        nlnet.load(tmp_path / "bare.pt")
    with pytest.raises(UserError, match=r"^experiment=smke is unknown.* smoke[^\n]*$"):
        nlnet.load(tmp_path / "bare.pt", experiment="smke")
    with pytest.raises(UserError, match=r"bare\.pt[^\n]*another network[^\n]*$"):
        nlnet.load(tmp_path / "bare.pt", experiment="i3d")
    recognizer = nlnet.load(tmp_path / "bare.pt", experiment="smoke", device="cpu")
    assert recognizer.class_names == ("0", "1")
    video = next((few_videos / "test").rglob("*.mp4"))
    assert recognizer.scores(video).shape == (2,)


def test_mistakes_are_one_line(trained: Path, tmp_path: Path):
    recognizer = load_recognizer(trained / "best.pt", device="cpu")
    with pytest.raises(UserError, match=r"^gone\.mp4: no such file[^\n]*$"):
        recognizer.scores("gone.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UserError, match=r"^[^\n]*text\.mp4: [^\n]+$"):
        recognizer.scores(tmp_path / "text.mp4")
    with pytest.raises(UserError, match=r"^gone\.pt: no such file[^\n]*$"):
        nlnet.load("gone.pt")


def test_a_damaged_checkpoint_is_refused(trained: Path, tmp_path: Path):
    shutil.copy(trained / "best.pt.sha256", tmp_path)
    data = bytearray((trained / "best.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "best.pt").write_bytes(data)
    with pytest.raises(UserError, match=r"^[^\n]*best\.pt: is damaged[^\n]*$"):
        nlnet.load(tmp_path / "best.pt")


def test_a_hydra_program_can_load_a_preset():
    """The program's own configuration is still there afterwards."""
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        assert compose_run("smoke").name == "smoke"
        assert compose("run", overrides=["+experiment=i3d"]).name == "i3d"
