"""Agents of torchrun that stand for several nodes, all of them on this machine."""

import socket
import sys
from pathlib import Path

TRAIN = Path(__file__).parents[1] / "tools" / "train.py"
# As docs/machines.md says.
ENVIRONMENT = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1"}


def agent_command(nodes: int, ranks: int, words: list[str], *, max_restarts: int = 0) -> list[str]:
    """The command of each agent of a training run: `nodes` agents with `ranks` ranks each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [
        *(sys.executable, "-m", "torch.distributed.run"),
        *(f"--nnodes={nodes}", f"--nproc-per-node={ranks}", f"--max-restarts={max_restarts}"),
        *("--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=local"),
        *("--local-addr=127.0.0.1", str(TRAIN), *words),
    ]
