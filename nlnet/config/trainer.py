"""Keys of `trainer`: the training loop."""

from dataclasses import dataclass, field


@dataclass
class TrainerConfig:
    """The training loop, and how it uses the machine."""

    # The length of the run: set one of the two, and leave the other null.
    epochs: int | None = None
    max_steps: int | None = None  # optimizer steps
    # Stop and save after this time, at the end of a step; the same command resumes. null: no limit.
    max_minutes: float | None = None
    accumulate: int = 1  # forward passes per optimizer step
    clip_grad_norm: float | None = None  # largest norm of the gradient of a step; null: no limit
    label_smoothing: float = 0.0  # share of the label that is spread over all classes
    # Above 0, the loss of a class with n training videos is weighted in proportion to n^-balance;
    # the mean weight of the videos is 1.
    loss_balance: float = 0.0
    # fp32; bf16 or fp16 (autocast; fp16 with a loss scaler); auto: bf16 on a GPU and on a processor
    # that is faster in bf16, else fp32
    precision: str = "fp32"
    freeze: list[str] = field(default_factory=list)  # parts that are not trained: conv1, res2, ...
    # A step whose loss or gradient is not finite is skipped; as many in a row stop the run.
    max_bad_steps: int = 10
    # Evaluate the average of the weights over the steps, a = ema a + (1 - ema) w after each step;
    # 0.999 averages about 1,000 steps. Checkpoints hold it, too. null: no average.
    ema: float | None = None
    precise_bn: int = 0  # batches that re-estimate the batch norm statistics before an evaluation
    eval_every: int = 1  # epochs
    save_every_steps: int | None = None  # also write last.pt between epochs
    save_every_minutes: float | None = None  # the same, by the clock
    # The newest checkpoints that are kept: last.pt, last.prev.pt, last.prev2.pt, ...
    keep_checkpoints: int = 2
    # Resume although the configuration or the data changed since the last checkpoint.
    accept_changes: bool = False
    channels_last: bool = True  # memory format of convolutions
    compile: bool = False  # torch.compile
    # default; max-autotune-no-cudagraphs (it times more kernels), reduce-overhead (CUDA graphs), or
    # max-autotune (both)
    compile_mode: str = "default"
    # On a GPU: cuDNN times its kernels and takes the fastest; off with trainer.deterministic.
    cudnn_benchmark: bool = True
    # On a GPU: products and convolutions in float32 read 10 bits of the mantissa of their factors.
    tf32: bool = True
    lean: bool = True  # on a CPU: keep one feature map per convolution
    # Stages that keep only the inputs of their blocks for the backward pass: res2, ...
    checkpoint_stages: list[str] = field(default_factory=list)
    # Only operations that repeat to the same bits, also on a GPU; slower there.
    deterministic: bool = False
    fold_norms: bool = True  # tools/eval.py: fold norms into the convolutions before them
    allocator: str = "reuse"  # freed CPU memory: reuse, keep (fast), return (small), system
