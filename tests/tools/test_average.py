"""trainer.ema from training to evaluation: the checkpoint gives the value of the log."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from nlnet.checkpoint import BEST, read_checkpoint
from nlnet.cli.choices import CONFIG_DIR
from nlnet.cli.compose import to_run
from nlnet.config import RunConfig, register_schemas
from nlnet.errors import UsageError
from nlnet.jobs.evaluate import evaluate_run
from nlnet.jobs.train import check_training, train
from nlnet.runs.record import METRICS
from nlnet.runs.scores import SCORES, read_scores

VIDEOS = Path(__file__).parents[1] / "fixtures" / "first_release" / "videos"


def averaged_run(*overrides: str) -> RunConfig:
    words = ["+experiment=smoke", "model.width=2", "data.test=val", "data.batch_size=4"]
    words += [f"data.root={VIDEOS}", "data.num_workers=0", "dist.device=cpu"]
    words += ["trainer.max_steps=6", "trainer.ema=0.5", "trainer.fold_norms=false", *overrides]
    register_schemas()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return to_run(compose("run", overrides=words))


def test_the_evaluation_of_a_checkpoint_gives_the_value_of_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    train(averaged_run(), tmp_path / "train")
    log = (tmp_path / "train" / "log.txt").read_text()
    assert "evaluates the average of the weights, trainer.ema=0.5" in log
    best = tmp_path / "train" / BEST
    checkpoint = read_checkpoint(best)
    assert checkpoint.average is not None and checkpoint.training is not None
    logged = checkpoint.training.progress.history[-1].val
    val = averaged_run().data.val_views
    same_views = [
        f"data.test_views.{key}={getattr(val, key)}"
        for key in ("num_clips", "num_crops", "crop_size", "short_side")
    ]
    found = {}
    for word in ("", "#model_ema", "#model"):
        out = tmp_path / f"eval{word}"
        evaluate_run(averaged_run(f"'weights=\"{best}{word}\"'".strip("'"), *same_views), out)
        found[word] = read_scores(out / SCORES).totals
        assert ("averaged weights" in capsys.readouterr().out) == (word != "#model")
        if word != "#model":
            assert json.loads((out / METRICS).read_text())["top1"] == logged["top1"]
    assert (found[""] == found["#model_ema"]).all()
    assert (found[""] != found["#model"]).any()


@pytest.mark.parametrize("decay", ["0", "1", "nan"])
def test_a_decay_out_of_range_is_refused(decay: str):
    with pytest.raises(UsageError, match=r"^trainer.ema="):
        check_training(averaged_run(f"trainer.ema={decay}"))
