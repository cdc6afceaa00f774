"""pytorchvideo's network of an experiment has the same layout; other layouts are refused."""

import pytest

from nlnet.bench.peer import build_peer
from nlnet.errors import UserError
from nlnet.model.build import build_model


@pytest.mark.parametrize("experiment", ["c2d", "i3d_nl5"])
def test_the_peer_has_the_same_number_of_parameters(benchmark_run, experiment: str):
    run = benchmark_run(experiment)
    ours, peer = build_model(run.model, 400), build_peer(run, 400)
    assert sum(p.numel() for p in peer.parameters()) == sum(p.numel() for p in ours.parameters())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.depth", "26"),
        ("model.norm", "frozen"),
        ("model.non_local.pairwise", "gaussian"),
        ("model.non_local.axes", "space"),
    ],
)
def test_a_layout_that_the_peer_lacks_is_refused_with_the_key(benchmark_run, key: str, value: str):
    with pytest.raises(UserError) as caught:
        build_peer(benchmark_run("c2d_nl1", f"{key}={value}"), 400)
    assert str(caught.value).startswith(f"{key}={value}: ")
