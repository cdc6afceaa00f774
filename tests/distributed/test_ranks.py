"""What the ranks of one run share, and the devices that they use."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from nlnet.config import DistConfig
from nlnet.distributed.build import build_device
from nlnet.distributed.ranks import (
    all_sum,
    from_main,
    gather_objects,
    is_main,
    pick_device,
    process_group,
    rank,
    world_size,
)
from nlnet.errors import ArgumentError, UsageError, UserError
from tests.distributed.conftest import PRELUDE, TORCH_PRELUDE

CPU = torch.device("cpu")


def test_a_single_process_is_rank_0():
    assert (rank(), world_size(), is_main()) == (0, 1, True)
    x = torch.tensor([1.0, 2.0])
    assert all_sum(x) is x
    assert from_main(x) is x
    assert x.tolist() == [1.0, 2.0]
    assert gather_objects("x") == ["x"]
    with process_group(CPU):
        assert not dist.is_initialized()


@pytest.mark.slow
def test_what_ranks_share(ranks, tmp_path: Path):
    code = """
    x = torch.tensor([rank() + 1.0, 10.0 * rank()])
    y = torch.tensor([rank() + 5])
    said = [rank(), world_size(), is_main(), all_sum(x).tolist(), x.tolist()]
    note(json.dumps([*said, from_main(y).tolist(), gather_objects({"rank": rank()})]))
"""
    assert ranks(TORCH_PRELUDE + code, 3) == 0
    for i in range(3):
        everyone = [{"rank": j} for j in range(3)]
        expected = [i, 3, i == 0, [6.0, 30.0], [6.0, 30.0], [5], everyone]
        assert json.loads((tmp_path / str(i)).read_text()) == expected


def test_the_process_group_ends_after_an_error_too(monkeypatch, tmp_path: Path):
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    for _ in range(2):  # a sweep joins one group after the other
        monkeypatch.setenv("MASTER_PORT", "0")
        with pytest.raises(KeyError), process_group(CPU):
            assert dist.is_initialized()
            raise KeyError
        assert not dist.is_initialized()


def test_several_slurm_tasks_without_a_rank_are_refused(monkeypatch):
    """srun starts them; salloc and sbatch start one process, whatever the size of the job."""
    monkeypatch.setenv("SLURM_NTASKS", "4")
    with process_group(CPU):
        pass
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.raises(UserError, match="srun started 4 tasks"), process_group(CPU):
        pass
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    with process_group(CPU):
        pass


def test_a_rank_without_a_group_is_refused(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("MASTER_PORT", "1")
    with pytest.raises(UserError, match="but not WORLD_SIZE, MASTER_ADDR;"), process_group(CPU):
        pass


def test_the_device_of_each_rank(monkeypatch):
    assert pick_device("cpu") == CPU
    with pytest.raises(UsageError, match=r"^dist\.device=tpu .*auto, cpu, cuda"):
        build_device(DistConfig(device="tpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert pick_device("auto") == CPU
    with pytest.raises(ArgumentError, match=r"^device=cuda: .*no CUDA device, there are 0"):
        pick_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert pick_device("auto") == pick_device("cuda") == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UsageError, match=r"^dist\.device=auto: .*dist\.num_procs=2"):
        build_device(DistConfig(device="auto"))


@pytest.mark.slow
def test_torchrun_starts_the_same_ranks(tmp_path: Path):
    program = tmp_path / "program.py"
    program.write_text(PRELUDE + TORCH_PRELUDE + "    note(str(all_sum(torch.ones(1)).item()))\n")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*command, str(program), str(tmp_path)], check=True, env=environment, timeout=120
    )
    assert [(tmp_path / str(i)).read_text() for i in (0, 1)] == ["2.0", "2.0"]
