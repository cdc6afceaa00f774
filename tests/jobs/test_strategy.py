"""Which settings a network that is divided among the ranks can have."""

import pytest
import torch
from torch import nn

from nlnet.checkpoint import Provenance
from nlnet.errors import UsageError
from nlnet.jobs.strategy import check_strategy, describe_strategy, distribute
from nlnet.trainer.state import TrainState
from tests.cli.commands import run_config

FSDP = "dist.strategy=fsdp"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dist.strategy=zero"], r"^dist\.strategy=zero .*ddp, fsdp"),
        ([FSDP, "trainer.compile=true"], r"^trainer\.compile=true .*set trainer\.compile=false"),
        ([FSDP, "trainer.precision=fp16"], r"^trainer\.precision=fp16 .*trainer\.precision=bf16"),
        (
            [FSDP, "dist.gradient_compression=int8"],
            r"^dist\.gradient_compression=int8 .*none, bf16",
        ),
    ],
)
def test_what_does_not_work_is_refused_with_the_remedy(words: list[str], message: str):
    with pytest.raises(UsageError, match=message):
        check_strategy(run_config(*words))


def test_one_rank_has_the_whole_network():
    """It trains as with ddp, to the same bits, and the log says so."""
    run = run_config(FSDP)
    check_strategy(run)
    model = nn.Linear(2, 1)
    state = TrainState(model, torch.optim.SGD(model.parameters()), Provenance())
    assert distribute(run, state, torch.device("cpu")) is model
    assert state.sharding is None
    (line,) = describe_strategy(run)
    assert "the only one has all of it" in line
    assert describe_strategy(run_config()) == []
