"""A run that trains for long keeps its memory, its open files and its threads."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tools.conftest import run_command

PROGRAM = str(Path(__file__).with_name("measured_train.py"))
CLIPS, BATCH = 2000, 24
WARM = 30  # steps at the start that do not count
PART = 10  # steps of which the smallest count is taken: batches on their way hold files
MOST = 8 * 2**20  # bytes that 2,000 clips may add to a process


@pytest.mark.parametrize(
    "device",
    [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=pytest.mark.gpu)],
)
def test_a_run_and_its_workers_keep_their_memory_files_and_threads(
    command: Callable[..., list[str]], tmp_path: Path, device: str
):
    steps = WARM + CLIPS // BATCH + PART
    words = (f"trainer.max_steps={steps}", f"data.batch_size={BATCH}", "data.num_workers=2")
    small = ("model.width=8", "data.clip.num_frames=2", "data.clip.crop_size=32")
    rare = ("trainer.eval_every=15", "trainer.max_minutes=4", f"dist.device={device}")
    train = command("train", *words, *small, *rare)[2:]
    done = run_command([sys.executable, PROGRAM, "counts.json", *train], tmp_path)
    assert done.returncode == 0, done.stderr
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert len(counts) == steps
    for name in counts[0]:
        values = [count[name] for count in counts[WARM:]]
        first, last = min(values[:PART]), min(values[-PART:])
        print(f"{name}: {first} -> {last}")
        assert last - first <= (MOST if name.endswith("bytes") else 0), name
