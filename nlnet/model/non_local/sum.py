"""The sum of several blocks, all of which read the same map."""

from torch import Tensor, nn


class BlockSum(nn.Module):
    """The sum of the outputs of named blocks; one of them adds x."""

    def __init__(self, **blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict(blocks)

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = (block(x) for block in self.blocks.values())
        return sum(rest, start=first)
