"""Segment two shapes by the color of the other one, with and without a non-local block.

An image has a shape at its left and at its right end, each of them red or blue. The class of the
pixels of a shape is the color of the other shape. The colors are independent, so that a shape says
nothing about its own class. The network is torchvision's FCN head on a small ResNet. Its output at
a pixel depends on less than 30 pixels to the left and to the right, and the shapes are at least 44
pixels apart. Without a non-local block, it can therefore not be better than chance (50 %).

The program trains both networks on the same generated images, and prints the share of the shapes'
pixels that have the right class, on images that were not used in training. It takes less than a
minute for each seed.

Examples:
  python scripts/segment_far.py
  python scripts/segment_far.py --seeds 0
"""

import argparse
import time
from collections import OrderedDict
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import BasicBlock
from torchvision.models.segmentation.fcn import FCN, FCNHead

import nlnet

CLASSES = ("background", "other is red", "other is blue")
COLORS = ((0.9, 0.2, 0.2), (0.3, 0.3, 1.0))
HEIGHT, WIDTH = 32, 96
RADIUS = 6  # of a shape, pixels
GAP = 44  # columns between the shapes, at least
SHAPE_WEIGHT = 10.0  # of the pixels of shapes in the loss, because they are few
STEPS = 200  # of training


class Batch(NamedTuple):
    images: Tensor  # (B, 3, H, W)
    labels: Tensor  # (B, H, W), numbers of CLASSES


def draw(count: int, generator: torch.Generator) -> Batch:
    """Draw images; a disc and a square change sides at random."""
    color = torch.randint(len(COLORS), (count, 2), generator=generator)
    band = (WIDTH - GAP) // 2 - 2 * RADIUS  # of the centers
    x = RADIUS + torch.randint(band, (count, 2), generator=generator)
    x[:, 1] = WIDTH - 1 - x[:, 1]
    y = torch.randint(RADIUS, HEIGHT - RADIUS, (count, 2), generator=generator)
    dx = (torch.arange(WIDTH) - x[..., None, None]).abs()  # (B, 2, 1, W)
    dy = (torch.arange(HEIGHT)[:, None] - y[..., None, None]).abs()  # (B, 2, H, 1)
    disc = dx**2 + dy**2 < RADIUS**2
    square = torch.maximum(dx, dy) < RADIUS - 1
    turn = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    is_disc = torch.cat([turn, ~turn], dim=1)
    shapes = torch.where(is_disc, disc, square)  # (B, 2, H, W)
    images = 0.5 + 0.1 * torch.randn(count, 3, HEIGHT, WIDTH, generator=generator)
    labels = torch.zeros(count, HEIGHT, WIDTH, dtype=torch.long)
    for i in range(2):
        own = torch.tensor(COLORS)[color[:, i], :, None, None]  # (B, 3, 1, 1)
        images = torch.where(shapes[:, i, None], own, images)
        labels += shapes[:, i] * (1 + color[:, 1 - i, None, None])
    return Batch(images, labels)


def build(width: int = 16) -> nn.Module:
    """An FCN head on a ResNet of two stages, with stride 4."""
    down = nn.Sequential(nn.Conv2d(width, 2 * width, 1, 2, bias=False), nn.BatchNorm2d(2 * width))
    stem = [nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    layers = OrderedDict[str, nn.Module](
        stem=nn.Sequential(*stem),
        layer1=nn.Sequential(BasicBlock(width, width)),
        layer2=nn.Sequential(
            BasicBlock(width, 2 * width, 2, down), BasicBlock(2 * width, 2 * width)
        ),
    )
    backbone = IntermediateLayerGetter(nn.Sequential(layers), {"layer2": "out"})
    return FCN(backbone, FCNHead(2 * width, len(CLASSES)))


def train(model: nn.Module, seed: int, *, steps: int, batch_size: int = 16) -> None:
    """Train with AdamW on new images in each step."""
    generator = torch.Generator().manual_seed(1000 + seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps)
    weight = torch.tensor([1.0, SHAPE_WEIGHT, SHAPE_WEIGHT])
    model.train()
    for _ in range(steps):
        images, labels = draw(batch_size, generator)
        loss = F.cross_entropy(model(images)["out"], labels, weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def accuracy(model: nn.Module, count: int = 512) -> float:
    """The share of the pixels of shapes with the right class, on images of a fixed seed."""
    images, labels = draw(count, torch.Generator().manual_seed(0))
    inside = labels > 0
    found = model.eval()(images)["out"].argmax(dim=1)
    return float((found == labels)[inside].double().mean())


def compare(seed: int, steps: int) -> dict[str, float]:
    """The accuracy without and with a non-local block."""
    found = {}
    for name, places in (("without", {}), ("with", {"backbone.layer2": [0]})):
        torch.manual_seed(seed)
        model = build()
        nlnet.insert_non_local(model, places)
        train(model, seed, steps=steps)
        found[name] = accuracy(model)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="(default %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="(default %(default)s)")
    args = parser.parse_args()
    print("right pixels of the shapes (chance: 50 %)")
    for seed in args.seeds:
        start = time.process_time()
        found = compare(seed, args.steps)
        shares = ", ".join(f"{name} the block {100 * share:.1f} %" for name, share in found.items())
        print(f"seed {seed}: {shares} ({time.process_time() - start:.0f} s of CPU time)")


if __name__ == "__main__":
    main()
