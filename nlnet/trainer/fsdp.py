"""Training with torch's `fully_shard` (FSDP2), which divides the parameters among the ranks.

Importing torch.distributed.fsdp takes half a second, so only a run that uses it imports this file.
"""

import copy
import weakref
from collections.abc import Iterable, Iterator
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn import Parameter
from torch.optim import Optimizer

from nlnet.distributed.ranks import world_size
from nlnet.errors import choose
from nlnet.trainer.sharding import ShardedNetwork, own_rows
from nlnet.trainer.state import TrainState

# The dtype in which gradients are sent and added; None: that of the parameters.
REDUCTIONS = {"none": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@torch.no_grad()
def shard_for_training(
    state: TrainState,
    units: Iterable[nn.Module],
    *,
    device: torch.device,
    gradient_compression: str = "none",
) -> ShardedNetwork:
    """Divide the parameters of a state among the ranks. Returns the network that training calls.

    Afterwards `state.model` holds this rank's rows of each parameter, and so do the optimizer and
    the averaged weights (see nlnet/trainer/sharding.py). The weights are contiguous: `fully_shard`
    does not take other memory formats.

    Args:
        state: whole on each rank, loaded from a checkpoint if there is one; it may be on the CPU
        units: modules whose parameters are gathered, and released, at the same time
        device: of this rank
        gradient_compression: a name in REDUCTIONS

    Raises:
        ArgumentError: the name is unknown.
    """
    dtype = choose("gradient_compression", gradient_compression, REDUCTIONS)
    network = state.model
    whole = dict(network.named_parameters())
    state.model = _without_parameters(network)
    scalars = {parameter for parameter in whole.values() if not parameter.ndim}
    for parameter in scalars:
        parameter.data = parameter.data.to(device)
    mesh = init_device_mesh(device.type, (world_size(),))
    _shard(network, units, scalars, mesh, dtype)
    for sharded, rows in zip(network.parameters(), state.model.parameters(), strict=True):
        if isinstance(sharded, DTensor):
            rows.data = sharded.to_local()
    rows_of = dict(zip(whole.values(), state.model.parameters(), strict=True))
    _divide_optimizer(state.optimizer, rows_of, device)
    if state.average is not None:
        for tensor in _tensors(state.average):
            is_divided = isinstance(tensor, Parameter) and tensor.ndim
            tensor.data = (own_rows(tensor) if is_divided else tensor.data).to(device)
    names = network.named_parameters(remove_duplicate=False)
    counts = {name: len(parameter) for name, parameter in names if parameter.ndim}
    set_sync = cast(FSDPModule, network).set_requires_gradient_sync
    state.sharding = ShardedNetwork(network, state.model, counts, set_sync)
    weakref.finalize(state.sharding, _release_groups, mesh)
    return state.sharding


def _shard(
    network: nn.Module,
    units: Iterable[nn.Module],
    scalars: set[Parameter],
    mesh: DeviceMesh,
    dtype: torch.dtype | None,
) -> None:
    """Apply `fully_shard` to the units of a network, then to the rest of it."""
    for parameter in network.parameters():
        parameter.data = parameter.data.contiguous()
    shard = partial(
        fully_shard,
        mesh=mesh,
        mp_policy=MixedPrecisionPolicy(reduce_dtype=dtype),
        ignored_params=scalars,
    )
    for unit in units:
        shard(unit)
    shard(network)
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(
                mesh.device_type == "cpu"
            )  # gloo has no average


def _release_groups(mesh: DeviceMesh) -> None:
    """Let a mesh forget its groups.

    Caches of torch keep the mesh until the interpreter ends, and with a group the threads of gloo,
    which must end before (see nlnet/distributed/ranks.py).
    """
    for value in vars(mesh).values():
        if isinstance(value, dict) and any(isinstance(v, ProcessGroup) for v in value.values()):
            value.clear()


def _without_parameters(model: nn.Module) -> nn.Module:
    """A copy of a model that shares its buffers and scalars; its other parameters are empty."""
    memo: dict[int, Tensor] = {id(buffer): buffer for buffer in model.buffers()}
    for parameter in model.parameters():
        empty = Parameter(parameter.new_empty(0), requires_grad=parameter.requires_grad)
        memo[id(parameter)] = empty if parameter.ndim else parameter
    return copy.deepcopy(model, memo)


def _divide_optimizer(
    optimizer: Optimizer, rows_of: dict[Parameter, Parameter], device: torch.device
) -> None:
    """Let an optimizer update the rows, and keep this rank's rows of its state."""
    for group in optimizer.param_groups:
        group["params"] = [rows_of[parameter] for parameter in group["params"]]
    for parameter, rows in rows_of.items():
        if parameter not in optimizer.state:
            continue
        values = optimizer.state[rows] = optimizer.state.pop(parameter)
        for key, value in values.items():
            if isinstance(value, Tensor) and key != "step":  # AdamW counts steps on the CPU
                values[key] = (own_rows(value) if value.ndim else value).to(device)


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()
