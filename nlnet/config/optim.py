"""Keys of `optim` and `schedule`: one class per optimizer and per schedule."""

from dataclasses import dataclass, field


@dataclass
class OptimConfig:
    """The keys that all optimizers have."""

    lr: float = 0.01  # for the batch size of the recipe; it is never scaled automatically
    weight_decay: float = 1e-4  # strength of the weight decay
    decay_norm: bool = False  # apply weight decay to the parameters of norms
    decay_bias: bool = True  # apply weight decay to the biases of convolutions and the classifier
    fused: bool = True  # on a GPU: one kernel updates many weights


@dataclass
class SGDConfig(OptimConfig):
    """Stochastic gradient descent."""

    momentum: float = 0.9  # share of the last update that is kept
    nesterov: bool = True  # Nesterov's form of momentum


@dataclass
class AdamWConfig(OptimConfig):
    """Adam with decoupled weight decay."""

    lr: float = 1e-3
    weight_decay: float = 0.05
    decay_bias: bool = False
    # Decay of the means of the gradient and of its square.
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])


@dataclass
class ScheduleConfig:
    """The learning rate as a function of the step, evaluated at every step."""

    warmup: float = 0.0  # length of the linear warmup, in epochs
    warmup_start: float = 0.1  # the warmup starts at this share of the learning rate


@dataclass
class StepConfig(ScheduleConfig):
    """Multiply the learning rate by gamma at each milestone."""

    milestones: list[float] = field(default_factory=lambda: [0.375, 0.75])  # shares of the run
    gamma: float = 0.1  # factor of the learning rate at a milestone


@dataclass
class CosineConfig(ScheduleConfig):
    """Decrease the learning rate along half a cosine, from 1 to `floor` times its value."""

    floor: float = 0.0  # share of the learning rate at the end of the run
