"""The compiled network is one graph, with the same losses and the same names of weights."""

import copy

import pytest
import torch
from torch import nn

from nlnet.cli.compose import compose_run
from nlnet.config import NonLocalConfig, ResNetConfig
from nlnet.model.build import build_model
from nlnet.model.classifier import Head, VideoClassifier
from nlnet.model.non_local.block import NonLocalBlock
from nlnet.model.non_local.build import BLOCKS
from nlnet.model.non_local.insertion import insert_non_local
from nlnet.model.non_local.pairwise import PAIRWISE
from nlnet.model.resnet3d import ResNet3d
from nlnet.model.speed.checkpointing import save_memory
from nlnet.trainer.cuda_arithmetic import cuda_arithmetic

I3D = {"res2": [3], "res3": [1], "res4": [3], "res5": [1]}


def network(pairwise: str) -> VideoClassifier:
    torch.manual_seed(0)
    backbone = ResNet3d(14, I3D, width=4)
    insert_non_local(
        backbone, {"res4": [0]}, lambda _, size: NonLocalBlock(size, pairwise=pairwise)
    )
    model = VideoClassifier(backbone, Head(128, 3, 0.0, None))
    save_memory(model, lean=True, checkpoint_stages=())
    return model


def losses(network: nn.Module, video: torch.Tensor, steps: int = 2) -> list[float]:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    taken = []
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        loss = network(video).square().mean()
        loss.backward()
        optimizer.step()
        taken.append(loss.item())
    return taken


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_a_training_step_is_one_graph(pairwise: str):
    model, twin = network(pairwise), network(pairwise)
    names = list(model.state_dict())
    video = torch.randint(0, 256, (2, 3, 4, 32, 32), dtype=torch.uint8)
    # With fullgraph, the compiler raises an error if it has to break the graph.
    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend="aot_eager")
    # torch raises an error where its compiler reads an older form of these settings.
    with cuda_arithmetic(cudnn_benchmark=True, tf32=True):
        assert losses(compiled, video) == pytest.approx(losses(twin, video), rel=1e-4)
    assert list(model.state_dict()) == names
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.parametrize("block", sorted(BLOCKS.keys() - {"non_local"}))
def test_the_other_blocks_are_one_graph(block: str):
    cfg = NonLocalConfig(block=block, ratio=0.25, res4=[0], zero_init=False)
    model = build_model(ResNetConfig(depth=14, width=4, non_local=cfg), 3)
    found = torch._dynamo.explain(model.get_submodule("backbone.res4.nl0"))(
        torch.randn(2, 64, 2, 4, 4)
    )
    assert (found.graph_count, found.graph_break_count) == (1, 0), found.break_reasons
    torch.compiler.reset()


@pytest.mark.slow
def test_a_network_of_the_paper_is_one_graph():
    model = build_model(compose_run("i3d_nl5").model, 3).train()
    save_memory(model, lean=True, checkpoint_stages=())
    video = torch.randint(0, 256, (2, 3, 4, 32, 32), dtype=torch.uint8)
    found = torch._dynamo.explain(model)(video)
    assert (found.graph_count, found.graph_break_count) == (1, 0), found.break_reasons
    torch.compiler.reset()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_step_in_bf16_on_the_gpu_follows_float32_on_the_cpu(compiled: bool):
    reference = network("embedded_gaussian")
    model = copy.deepcopy(reference).cuda().to(memory_format=torch.channels_last_3d)
    forward = torch.compile(model, fullgraph=True) if compiled else model
    video = torch.randint(0, 256, (2, 3, 4, 32, 32), dtype=torch.uint8)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        logits = forward(video.cuda())
    logits.float().square().sum().backward()
    expected = reference(video)
    expected.square().sum().backward()
    torch.testing.assert_close(logits.float().cpu(), expected, rtol=0.05, atol=0.05)
    assert all(parameter.grad is not None for parameter in model.parameters())
    torch.compiler.reset()
