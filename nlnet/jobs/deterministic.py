"""Training whose repetitions have the same bits, also on a GPU."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nlnet.config import TrainerConfig
from nlnet.errors import UsageError

# torch's message: `NAME does not have a deterministic implementation, but you set ...`.
_REFUSED = re.compile(r"(\S+) does not have a deterministic implementation")


@contextmanager
def deterministic_algorithms(cfg: TrainerConfig) -> Iterator[None]:
    """Use deterministic algorithms of torch, cuDNN and cuBLAS only, if the config asks for it.

    Enter it before CUDA starts: cuBLAS reads its setting once. Raises UsageError that names an
    operation without a deterministic form.
    """
    if not cfg.deterministic:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    except RuntimeError as error:
        found = _REFUSED.match(str(error))
        if found is None:
            raise
        raise UsageError(
            f"trainer.deterministic=true: {found[1]} has no deterministic form on this device; use "
            "another network or the CPU, or set trainer.deterministic=false"
        ) from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
