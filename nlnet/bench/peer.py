"""pytorchvideo's network of an experiment's layout, which the benchmark compares with."""

import warnings

from torch import nn

from nlnet.config import NonLocalConfig, ResNetConfig, RunConfig
from nlnet.errors import UserError
from nlnet.model.non_local.build import placement

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # pytorchvideo uses parts of torch that are deprecated
    from pytorchvideo.layers.nonlocal_net import create_nonlocal
    from pytorchvideo.models.resnet import create_resnet

# nlnet's pairwise function -> pytorchvideo's; it has these two.
INSTANTIATIONS = {"embedded_gaussian": "softmax", "dot_product": "dot_product"}


def build_peer(run: RunConfig, num_classes: int) -> nn.Module:
    """Build `create_resnet` of pytorchvideo with its non-local blocks in the same places.

    Raises UserError if pytorchvideo has no network of the experiment's layout.
    """
    cfg = run.model
    if not isinstance(cfg, ResNetConfig):
        raise UserError("model=pytorchvideo/...: the network is the peer itself; choose a ResNet")
    _refuse_other_layouts(cfg)
    kernels = cfg.temporal_kernels
    frames = run.data.clip.num_frames
    for stride in (cfg.conv1_stride, cfg.pool1_stride, cfg.pool2_stride):
        frames //= stride[0] if stride is not cfg.pool2_stride or cfg.pool2_kernel else 1
    side = run.data.clip.crop_size // 32
    net = create_resnet(
        model_depth=cfg.depth,
        model_num_class=num_classes,
        dropout_rate=cfg.dropout,
        stem_conv_kernel_size=tuple(cfg.conv1_kernel),
        stem_conv_stride=tuple(cfg.conv1_stride),
        stem_pool_kernel_size=tuple(cfg.pool1_kernel),
        stem_pool_stride=tuple(cfg.pool1_stride),
        stage1_pool=None if cfg.pool2_kernel is None else nn.MaxPool3d,
        stage1_pool_kernel_size=tuple(cfg.pool2_kernel or ()),
        stage_conv_a_kernel_size=tuple(
            [(t, 1, 1) for t in pattern]
            for pattern in (kernels.res2, kernels.res3, kernels.res4, kernels.res5)
        ),
        head_pool_kernel_size=(frames, side, side),
    )
    _insert_peer_blocks(net, cfg.non_local)
    return net


def _insert_peer_blocks(net: nn.Module, cfg: NonLocalConfig) -> None:
    """Insert pytorchvideo's non-local blocks after the residual blocks that the config names."""
    stages = [part for part in net.get_submodule("blocks").children() if "ResStage" in repr(part)]
    for stage, (_, after) in zip(stages, placement(cfg).items(), strict=True):
        blocks = nn.ModuleList()
        for i, block in enumerate(stage.get_submodule("res_blocks").children()):
            blocks.append(block)
            if i in after:
                channels = block.get_parameter("branch2.conv_c.weight").shape[0]
                blocks.append(
                    create_nonlocal(
                        dim_in=channels,
                        dim_inner=int(channels * cfg.ratio),
                        pool_size=tuple(cfg.subsample_kernel),
                        instantiation=INSTANTIATIONS[cfg.pairwise],
                    )
                )
        stage.set_submodule("res_blocks", blocks)


def _refuse_other_layouts(cfg: ResNetConfig) -> None:
    """Raise UserError for settings that `create_resnet` and `create_nonlocal` do not support."""
    attention = cfg.non_local
    theirs = {
        "model.depth": (cfg.depth, (50, 101, 152)),
        "model.width": (cfg.width, (64,)),
        "model.inflate_conv": (cfg.inflate_conv, ("a",)),
        "model.stride_conv": (cfg.stride_conv, ("b",)),
        "model.norm": (cfg.norm, ("batch",)),
        "model.pool1_padding": (cfg.pool1_padding, ([k // 2 for k in cfg.pool1_kernel],)),
        "model.head_window": (cfg.head_window, (None,)),
    }
    if any(placement(attention).values()):
        theirs |= {
            "model.non_local.block": (attention.block, ("non_local",)),
            "model.non_local.pairwise": (attention.pairwise, tuple(INSTANTIATIONS)),
            "model.non_local.axes": (attention.axes, ("spacetime",)),
            "model.non_local.subsample": (attention.subsample, ("input",)),
            "model.non_local.norm": (attention.norm, ("batch",)),
        }
    for key, (value, known) in theirs.items():
        if value not in known:
            choices = " or ".join("null" if choice is None else str(choice) for choice in known)
            raise UserError(
                f"{key}={value}: pytorchvideo has no such network to compare with; set {choices}"
            )
