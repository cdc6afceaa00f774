import numpy as np
import pytest
import torch
from torch import nn

from nlnet.config import (
    AdamWConfig,
    CosineConfig,
    DataConfig,
    OptimConfig,
    ResNetConfig,
    RunConfig,
    ScheduleConfig,
    SGDConfig,
    StepConfig,
    TrainerConfig,
)
from nlnet.errors import UsageError
from nlnet.trainer.build import (
    PRECISIONS,
    build_optimizer,
    build_scaler,
    build_schedule,
    build_settings,
    check_labels,
)

CPU = torch.device("cpu")


def run_config(**trainer) -> RunConfig:
    return RunConfig(
        name="x",
        seed=5,
        model=ResNetConfig(),
        data=DataConfig(root="."),
        optim=SGDConfig(lr=0.02),
        schedule=CosineConfig(),
        trainer=TrainerConfig(**{"epochs": 100, **trainer}),
    )


def test_sgd_has_the_values_of_the_config():
    model = nn.Sequential(nn.Conv3d(1, 1, 1), nn.BatchNorm3d(1))
    optimizer = build_optimizer(SGDConfig(lr=0.3, momentum=0.8, weight_decay=0.01), model)
    assert type(optimizer) is torch.optim.SGD
    decays = [(len(group["params"]), group["weight_decay"]) for group in optimizer.param_groups]
    assert decays == [(2, 0.01), (2, 0.0)]
    for group in optimizer.param_groups:
        assert (group["lr"], group["momentum"], group["nesterov"]) == (0.3, 0.8, True)


@pytest.mark.parametrize("cfg", [SGDConfig(), AdamWConfig()], ids=["sgd", "adamw"])
def test_weights_on_a_cpu_are_updated_as_before(cfg: OptimConfig):
    assert cfg.fused
    (group,) = build_optimizer(cfg, nn.Linear(2, 2, bias=False)).param_groups
    assert group["fused"] is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("fused", [True, False])
def test_weights_on_a_gpu_are_updated_by_fused_kernels(fused: bool):
    model = nn.Linear(2, 2, bias=False).cuda()
    (group,) = build_optimizer(SGDConfig(fused=fused), model).param_groups
    assert group["fused"] is (True if fused else None)


def test_adamw_has_the_values_of_the_config():
    optimizer = build_optimizer(AdamWConfig(betas=[0.8, 0.95]), nn.Linear(2, 2))
    assert type(optimizer) is torch.optim.AdamW
    weight, bias = optimizer.param_groups
    assert (weight["weight_decay"], bias["weight_decay"]) == (0.05, 0.0)
    assert weight["betas"] == (0.8, 0.95)


def test_schedules_have_the_values_of_the_config():
    steps = build_schedule(StepConfig(milestones=[0.5], gamma=0.2), 100, 10)
    assert (steps(49), steps(50)) == (1.0, 0.2)
    cosine = build_schedule(CosineConfig(floor=0.1, warmup=2.5, warmup_start=0.0), 100, 10)
    assert cosine(0) == 0.0
    assert cosine(12.5) == pytest.approx(cosine(25) / 2)
    assert cosine(100) == pytest.approx(0.1)


@pytest.mark.parametrize("balance", [0.5, 1.0])
def test_weights_of_the_loss_have_a_mean_of_1_over_the_videos(balance: float):
    counts = np.array([60, 25, 10, 5, 0])
    settings = build_settings(run_config(loss_balance=balance), 7, CPU, counts)
    weights = settings.class_weights.double().numpy()
    assert (weights * counts).sum() / 100 == pytest.approx(1)
    assert weights[2] / weights[0] == pytest.approx(6**balance)
    assert weights[4] == weights.max() < 100
    assert build_settings(run_config(), 7, CPU, counts).class_weights is None
    assert build_settings(run_config(loss_balance=balance), 7, CPU).class_weights is None
    with pytest.raises(UsageError, match=r"^trainer\.loss_balance=2"):
        build_settings(run_config(loss_balance=2.0), 7, CPU)


def test_milestones_in_epochs_are_refused():
    with pytest.raises(UsageError, match=r"schedule\.milestones.*between 0 and 1"):
        build_schedule(StepConfig(milestones=[40, 80]), 100, 10)


def test_the_base_classes_of_configs_are_refused():
    with pytest.raises(TypeError):
        build_optimizer(OptimConfig(), nn.Linear(1, 1))
    with pytest.raises(TypeError):
        build_schedule(ScheduleConfig(), 1, 1)


def test_the_length_of_a_run_is_in_epochs_or_steps():
    assert build_settings(run_config(epochs=3, max_steps=None), 7, CPU).total_steps == 21
    settings = build_settings(run_config(epochs=None, max_steps=10), 7, CPU)
    assert (settings.total_steps, settings.num_epochs) == (10, 2)
    assert (settings.steps_in(0), settings.steps_in(1)) == (7, 3)


@pytest.mark.parametrize(
    ("epochs", "max_steps", "remedy"),
    [(10, 400000, "set trainer.max_steps=null"), (None, None, "give trainer.epochs=NUMBER")],
)
def test_a_run_needs_exactly_one_length(epochs: int | None, max_steps: int | None, remedy: str):
    with pytest.raises(UsageError, match=rf"^trainer\.epochs.*{remedy}[^\n]*$"):
        build_settings(run_config(epochs=epochs, max_steps=max_steps), 7, CPU)


def test_the_settings_are_those_of_the_config():
    trainer = {
        "accumulate": 2,
        "clip_grad_norm": 40.0,
        "label_smoothing": 0.1,
        "precision": "bf16",
        "precise_bn": 200,
        "eval_every": 4,
        "save_every_steps": 50,
        "channels_last": False,
        "freeze": ["conv1"],
    }
    settings = build_settings(run_config(**trainer), 7, CPU)
    expected = trainer | {"precision": torch.bfloat16, "freeze": ("conv1",)}
    assert {name: vars(settings)[name] for name in trainer} == expected
    assert (settings.seed, settings.lr, settings.max_bad_share) == (5, 0.02, 0.01)


@pytest.mark.parametrize(
    "name", ["epochs", "max_steps", "accumulate", "eval_every", "save_every_steps"]
)
def test_counts_below_one_are_refused(name: str):
    with pytest.raises(UsageError, match=rf"trainer\.{name}=0 must be 1 or more"):
        build_settings(run_config(**{name: 0}), 7, CPU)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("precise_bn", -1, "0 or more"),
        ("label_smoothing", 2.0, "below 1"),
        ("label_smoothing", -0.1, "0 or more"),
        ("clip_grad_norm", 0.0, "above 0, or null"),
    ],
)
def test_a_number_of_the_trainer_out_of_range_is_refused(name: str, value: float, wanted: str):
    with pytest.raises(UsageError, match=rf"^trainer\.{name}={value} must be {wanted}"):
        build_settings(run_config(**{name: value}), 7, CPU)


@pytest.mark.parametrize("share", [-1.0, 1.5])
def test_max_bad_share_is_from_0_to_1(share: float):
    cfg = run_config()
    cfg.data.max_bad_share = share
    with pytest.raises(UsageError, match=r"^data\.max_bad_share=.* must be from 0 to 1$"):
        build_settings(cfg, 7, CPU)


@pytest.mark.parametrize(
    ("schedule", "named"),
    [
        (CosineConfig(warmup=-1.0), r"schedule\.warmup=-1\.0 .*from 0 .* 5 epochs"),
        (StepConfig(warmup=5.1), r"schedule\.warmup=5\.1 .*from 0 .* 5 epochs"),
        (CosineConfig(warmup_start=2.0), r"schedule\.warmup_start=2\.0"),
        (CosineConfig(floor=-0.1), r"schedule\.floor=-0\.1"),
        (StepConfig(gamma=-0.1), r"schedule\.gamma=-0\.1"),
    ],
)
def test_a_schedule_out_of_range_is_refused(schedule: ScheduleConfig, named: str):
    with pytest.raises(UsageError, match=f"^{named}"):
        build_schedule(schedule, 50, 10)


@pytest.mark.parametrize(
    ("optim", "named"),
    [
        (SGDConfig(lr=-1.0), r"optim\.lr=-1\.0 must be a number above 0"),
        (AdamWConfig(lr=float("nan")), r"optim\.lr=nan"),
        (AdamWConfig(lr=float("inf")), r"optim\.lr=inf must be a number above 0"),
        (AdamWConfig(weight_decay=float("nan")), r"optim\.weight_decay=nan must be 0 or more"),
        (AdamWConfig(weight_decay=-1.0), r"optim\.weight_decay=-1\.0 must be 0 or more"),
        (AdamWConfig(betas=[0.9]), r"optim\.betas=\[0\.9\] must be two numbers, each 0 or more"),
        (AdamWConfig(betas=[2.0, 3.0]), r"optim\.betas=\[2\.0, 3\.0\] must be two numbers"),
        (SGDConfig(momentum=1.0), r"optim\.momentum=1\.0 must be below 1"),
        (SGDConfig(momentum=0.0), r"optim\.nesterov=true .*set optim\.nesterov=false"),
    ],
)
def test_a_number_of_the_optimizer_out_of_range_is_refused(optim: OptimConfig, named: str):
    with pytest.raises(UsageError, match=f"^{named}"):
        build_optimizer(optim, nn.Linear(2, 2))


def test_a_model_without_parameters_that_learn_is_refused():
    with pytest.raises(UsageError, match=r"^trainer\.freeze: no parameter is left"):
        build_optimizer(SGDConfig(), nn.Linear(2, 2).requires_grad_(False))


def test_smoothing_is_for_one_label_per_video():
    cfg = run_config(label_smoothing=0.1)
    cfg.model.activation = "sigmoid"
    with pytest.raises(UsageError, match=r"^trainer\.label_smoothing=0\.1 .*val\.txt .*several"):
        check_labels(cfg, "val.txt", np.zeros((4, 3), np.float32))


@pytest.mark.parametrize(
    ("activation", "several", "other"),
    [("softmax", True, "sigmoid"), ("sigmoid", False, "softmax")],
)
def test_an_activation_that_does_not_fit_the_labels_is_refused(
    activation: str, several: bool, other: str
):
    cfg = run_config()
    one, many = np.zeros(4, np.int64), np.zeros((4, 3), np.float32)
    cfg.model.activation = activation
    with pytest.raises(
        UsageError,
        match=rf"^model\.activation={activation} .* val\.txt .*activation={other}[^\n]*$",
    ):
        check_labels(cfg, "val.txt", many if several else one)
    cfg.model.activation = other
    check_labels(cfg, "val.txt", many if several else one)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_scaler_is_inactive_on_the_cpu(precision: str):
    assert not build_scaler(TrainerConfig(precision=precision), CPU).is_enabled()


def test_an_unknown_precision_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match=r"trainer\.precision=fp8 is unknown.*auto"):
        build_settings(run_config(precision="fp8"), 7, CPU)
