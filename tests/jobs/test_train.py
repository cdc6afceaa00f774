"""What a training run checks before it starts."""

import re

import pytest

from nlnet.errors import UsageError
from nlnet.jobs.train import check_training
from tests.cli.commands import run_config


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["inflation=foo"], "inflation=foo is unknown"),
        (["trainer.freeze=[backbone,head]"], "trainer.freeze: no parameter is left"),
        (["optim=sgd", "optim.momentum=0"], "optim.nesterov=true"),
        (["trainer.epochs=3"], "trainer.epochs=3 and trainer.max_steps=8"),
        (["schedule.warmup=9"], "schedule.warmup=9.0"),
        (["trainer.compile_mode=fastest"], "trainer.compile_mode=fastest"),
        (["dist.static_graph=true", "trainer.accumulate=2"], "dist.static_graph=true"),
        (["data.clip.num_frames=1"], "clips of 1 frames and 48 x 48 pixels do not pass"),
        (
            ["model.head_window=[2,2]", "data.val_views.crop_size=16"],
            "clips of 8 frames and 16 x 16 pixels do not pass",
        ),
        (
            ["data.batch_size=1", "data.clip.num_frames=2", "data.clip.crop_size=32"],
            "data.batch_size=1: the batch norm backbone.res5.block0.norm_b has one value",
        ),
    ],
)
def test_a_mistake_is_found_before_there_are_ranks(words: list[str], named: str):
    with pytest.raises(UsageError, match=rf"^{re.escape(named)}[^\n]*$"):
        check_training(run_config(*words))
