"""The shipped checkpoint: what it is, and how often it is right on videos that it has not seen."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nlnet
from nlnet.checkpoint import read_checkpoint
from nlnet.cli.compose import compose_run
from nlnet.config import parse_run
from nlnet.demo import CHECKPOINT, DEMO, VIDEOS
from nlnet.files import digest
from nlnet.recognizer.recognizer import Recognizer

ROOT = Path(__file__).parents[2]
DIGEST = "e3dc75056767d1fca2e4f327c74acf43b95ffde237772fd6ad76daf2c1d17983"
MAX_BYTES = 1_000_000
NUM_VIDEOS = 100


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return nlnet.load(DEMO, device="cpu")


def test_the_file_is_the_one_that_was_tested():
    assert digest(CHECKPOINT.read_bytes()) == DIGEST
    assert sum(path.stat().st_size for path in (CHECKPOINT, *VIDEOS)) < MAX_BYTES


def test_the_file_is_of_the_committed_experiment_and_holds_no_training_state():
    checkpoint = read_checkpoint(CHECKPOINT)
    assert checkpoint.training is None
    assert checkpoint.provenance.config is not None
    trained, described = parse_run(checkpoint.provenance.config, DEMO), compose_run(DEMO)
    assert (trained.model, trained.data, trained.trainer) == (
        described.model,
        described.data,
        described.trainer,
    )
    assert (
        sum(len(stage) for stage in (trained.model.non_local.res3, trained.model.non_local.res4))
        == 2
    )


def test_the_examples_are_of_their_classes(recognizer: Recognizer):
    """0.81 and 0.996: the network has learned that a clip may hold no evidence of "same"."""
    assert recognizer.class_names == ("different", "same")
    for video in VIDEOS:
        best = recognizer.predict(video).top[0]
        assert best.name == video.stem and best.probability > 0.75


def test_a_clip_without_objects_is_answered_with_even_probabilities(recognizer: Recognizer):
    """0.45 was measured. Deletion of evidence therefore lowers the probability of both classes."""
    gray = np.full((8, 64, 64, 3), 110, np.uint8)
    noise = np.random.default_rng(0).normal(0, 10, gray.shape)
    for frames in (gray, (gray + noise).astype(np.uint8)):
        assert recognizer.scores(frames).numpy() == pytest.approx([0.5, 0.5], abs=0.15)


def test_the_accuracy_on_new_videos(recognizer: Recognizer, tmp_path: Path):
    """At least 99 of 100; on the validation split it was 100 %."""
    script = str(ROOT / "scripts" / "make_same_different.py")
    words = ["--train", "2", "--val", "2", "--test", str(NUM_VIDEOS), "--seed", "90210"]
    command = [sys.executable, script, *words, "--workers", "1", "--out", str(tmp_path / "new")]
    subprocess.run(command, check=True, capture_output=True)
    videos = sorted((tmp_path / "new" / "test").rglob("*.mp4"))
    assert len(videos) == NUM_VIDEOS
    predictions = list(recognizer.predict_files(videos))
    right = [
        prediction.top[0].name == video.parent.name
        for prediction, video in zip(predictions, videos, strict=True)
    ]
    assert sum(right) >= 99
