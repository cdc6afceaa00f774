"""What a training run checks before it starts."""

import re

import pytest

from nlnet.errors import UsageError
from nlnet.jobs.norm_values import check_norms
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


SMALL = ("data.clip.num_frames=2", "data.clip.crop_size=32")  # one position in res5
SYNC = ("model.norm=sync", "model.non_local.norm=sync")
TWO = ("data.batch_size=2", "dist.num_procs=2")
LAST = "model.non_local.res5=[0]"


@pytest.mark.parametrize(
    ("words", "norm"),
    [
        (TWO, "backbone.res5.block0.norm_b"),
        ((*TWO, LAST, SYNC[0]), "backbone.res5.nl0.norm"),
        (("data.batch_size=2", "trainer.accumulate=2"), "backbone.res5.block0.norm_b"),
        (("data.batch_size=1", *SYNC), "backbone.res5.block0.norm_b"),
        ((*TWO, LAST, *SYNC), ""),
        (("data.batch_size=2",), ""),
        (("data.batch_size=1", "model.norm=frozen", "model.non_local.norm=frozen", LAST), ""),
    ],
)
def test_a_norm_with_one_value_is_refused_in_every_path(words: tuple[str, ...], norm: str):
    """Ranks, synchronized norms, accumulation, and a block on a map with one position."""
    run = run_config(*SMALL, *words)
    if not norm:
        check_norms(run)
        return
    with pytest.raises(UsageError, match=rf"the batch norm {re.escape(norm)} has one value"):
        check_norms(run)
