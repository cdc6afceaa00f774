"""Parameters that are divided among the ranks: each rank has some rows of every parameter.

The network of torch's `fully_shard` holds its parameters as DTensors. Everything else uses `rows`,
a model of plain tensors with the same names: its parameters are this rank's rows, in the same
memory. The optimizer, the averaged weights and the gradient are rows, too, so that they are
computed as for one rank. They are gathered for checkpoints and for evaluations.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from nlnet.distributed.ranks import all_sum, is_main, rank, world_size

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor  # its import takes half a second


def own_rows(tensor: Tensor) -> Tensor:
    """A contiguous copy of this rank's rows (n_r, ...) of a tensor (n, ...): a part by torch.chunk.

    The last ranks may have fewer rows, or none.
    """
    size = -(-len(tensor) // world_size())
    rows = tensor.detach()[rank() * size : (rank() + 1) * size]
    return rows.clone(memory_format=torch.contiguous_format)


def gather_rows(rows: Tensor, count: int) -> Tensor:
    """The tensor (count, ...) of which each rank has the part that `own_rows` gives."""
    size = -(-count // world_size())
    padded = rows.new_zeros(size, *rows.shape[1:])
    padded[: len(rows)] = rows
    gathered = rows.new_empty(size * world_size(), *rows.shape[1:])
    dist.all_gather(list(gathered.split(size)), padded)
    return gathered[:count]


class ShardedNetwork(nn.Module):
    """The network that training calls, and the rows of its parameters on this rank.

    Scalar parameters have no rows: every rank has them.

    Args:
        network: of `fully_shard`; its scalar parameters are ignored by it
        rows: a model with the same names, whose parameters share the memory of the network's shards
        counts: the number of rows of each parameter on all ranks together, for those with rows
        set_sync: whether the next backward pass reduces the gradients
    """

    def __init__(
        self,
        network: nn.Module,
        rows: nn.Module,
        counts: Mapping[str, int],
        set_sync: Callable[[bool], None],
    ) -> None:
        super().__init__()
        self.network = network
        self._counts = counts
        self._set_sync = set_sync
        self._parameters_of = list(zip(network.parameters(), rows.parameters(), strict=True))

    def forward(self, video: Tensor) -> Tensor:
        return self.network(video)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Within, backward passes add up the gradients of this rank, as DDP's `no_sync` does."""
        self._set_sync(False)
        try:
            yield
        finally:
            self._set_sync(True)

    @torch.no_grad()
    def take_gradients(self) -> None:
        """Give the rows their mean gradient over the ranks, after the backward pass of a step."""
        for parameter, rows in self._parameters_of:
            if parameter.grad is None:
                continue
            if rows is parameter:  # a scalar
                all_sum(parameter.grad.div_(world_size()))
            else:
                rows.grad = cast("DTensor", parameter.grad).to_local()
                parameter.grad = None

    def gradient_norm(self, grads: Sequence[Tensor]) -> Tensor:
        """The norm of the gradient, of which each rank has its rows and all scalars."""
        divided = [grad for grad in grads if grad.ndim]
        scalars = [grad for grad in grads if not grad.ndim]
        square = all_sum(get_total_norm(divided).double().square())
        if scalars:
            square += get_total_norm(scalars).double().square()
        return square.sqrt().float()

    @contextmanager
    def whole(self, model: nn.Module) -> Iterator[None]:
        """Within, the parameters of a model of rows are whole, and it computes without other ranks.

        All ranks must enter together.
        """
        parts = {name: parameter.data for name, parameter in model.named_parameters()}
        try:
            for name, parameter in model.named_parameters():
                if name in self._counts:
                    parameter.data = gather_rows(parameter.data, self._counts[name])
            yield
        finally:
            for name, parameter in model.named_parameters():
                parameter.data = parts[name]

    def gather_state(self, state: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        """The state of a model of rows as one rank would have it, on rank 0 and on the CPU."""
        for name, value in state.items():
            if isinstance(value, Tensor):
                state[name] = self._gather(value, name.removeprefix(prefix))
        return state if is_main() else {}

    def gather_optimizer(self, optimizer: Optimizer, rows: nn.Module) -> dict[str, Any]:
        """The state of an optimizer of the rows as one rank would have it, on rank 0."""
        names = {parameter: name for name, parameter in rows.named_parameters()}
        order = [names[p] for group in optimizer.param_groups for p in group["params"]]
        state = optimizer.state_dict()
        state["state"] = {
            index: {
                key: self._gather(value, order[index])
                if isinstance(value, Tensor) and value.ndim
                else value
                for key, value in values.items()
            }
            for index, values in state["state"].items()
        }
        return state if is_main() else {}

    def _gather(self, value: Tensor, name: str) -> Tensor:
        if name in self._counts:
            value = gather_rows(value.detach(), self._counts[name])
        return value.cpu() if is_main() else value.new_empty(0)
