"""Short training curves equal the committed ones, so that numerics do not change unseen.

The curves were made by tests/fixtures/golden_losses/make.py. Those of a GPU are not made yet.
"""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "fixtures" / "golden_losses"
# Ten times the largest relative difference of a step, over all networks, between one thread with
# AVX-512 and: two threads, AVX2, and the plain code of PyTorch with SSE 4.1 in oneDNN. Rounding
# grows from 1e-7 in the first step to 4e-3 in the sixth.
TOLERANCES = 1e-5, 1e-5, 2e-4, 2e-2, 2e-2, 4e-2


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_golden_losses", FOLDER / "make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CURVES = json.loads((FOLDER / "losses_cpu.json").read_text())["curves"]


def differences(found: list[float], golden: list[float]) -> list[float]:
    return [abs(a - b) / b for a, b in zip(found, golden, strict=True)]


@pytest.mark.parametrize(
    "network",
    [
        name if name in ("i3d_embedded_gaussian",) else pytest.param(name, marks=pytest.mark.slow)
        for name in CURVES
    ],
)
def test_a_curve_equals_the_committed_one(make: ModuleType, network: str):
    assert_near(make.losses(network), CURVES[network])


def assert_near(losses: list[float], golden: list[float]) -> None:
    found = differences(losses, golden)
    assert len(found) == len(TOLERANCES)
    assert all(a <= b for a, b in zip(found, TOLERANCES, strict=True)), found


@pytest.mark.gpu
@pytest.mark.parametrize("network", CURVES)
def test_a_curve_of_a_gpu_equals_the_committed_one(make: ModuleType, network: str):
    """Float32 without TF32 rounds as on a CPU, so the tolerances are the same."""
    if not make.LOSSES["cuda"].exists():
        pytest.skip("no curves of a GPU are committed: run make.py --device cuda, and commit them")
    golden = json.loads(make.LOSSES["cuda"].read_text())["curves"]
    assert_near(make.losses(network, "cuda"), golden[network])


def test_every_network_has_a_curve(make: ModuleType):
    assert list(CURVES) == list(make.NETWORKS)


@pytest.mark.slow
def test_a_small_change_of_the_learning_rate_is_seen(
    make: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    torch.manual_seed(0)
    build = make.build_settings
    monkeypatch.setattr(make, "build_settings", lambda run, *a, **k: build(scaled(run), *a, **k))
    found = differences(make.losses("i3d"), CURVES["i3d"])
    assert found[0] <= TOLERANCES[0] and found[1] > TOLERANCES[1]


def scaled(run):
    run.optim.lr *= 1.001
    return run
