"""A wrong value of a model's config is reported in one line with its key."""

import pytest
from omegaconf import OmegaConf

from nlnet.config import ResNetConfig
from nlnet.errors import UsageError
from nlnet.model.build import build_model, check_clips, describe_model
from nlnet.model.classifier import VideoClassifier


def config(*settings: str) -> ResNetConfig:
    """The config of a small network, with overrides of `model` as on a command line."""
    usual = OmegaConf.structured(ResNetConfig(depth=14, width=8))
    tree = OmegaConf.merge(usual, OmegaConf.from_dotlist(list(settings)))
    cfg = OmegaConf.to_object(tree)
    assert isinstance(cfg, ResNetConfig)
    return cfg


def build(*settings: str) -> VideoClassifier:
    return build_model(config(*settings), num_classes=3)


@pytest.mark.parametrize(
    "setting",
    [
        "conv1_kernel=[1,7]",
        "conv1_kernel=[2,7,7]",
        "conv1_kernel=[1,6,6]",
        "conv1_stride=[0,2,2]",
        "pool1_kernel=[1,0,3]",
        "pool1_stride=[1,2]",
        "pool1_padding=[5,5,5]",
        "pool1_padding=[0,-1,1]",
        "pool2_kernel=[2,1]",
        "pool2_stride=[0,1,1]",
        "pool2_padding=[2,0,0]",
        "temporal_kernels.res3=[]",
        "temporal_kernels.res3=[0]",
        "temporal_kernels.res3=[2]",
        "temporal_kernels.res5=[3,-1]",
        "width=-1",
        "width=0",
        "dropout=2",
        "dropout=-0.1",
        "head_window=[7]",
        "head_window=[0,0]",
        "non_local.group_frames.res3=0",
        "non_local.temperature=0",
        "non_local.ratio=0",
        "non_local.ratio=-1",
        "non_local.subsample_kernel=[0,0,0]",
        "non_local.subsample_kernel=[2,2]",
        "non_local.stage_subsample_kernel.res4=[1,0,2]",
        "non_local.block=sparse",
        "non_local.pairwise=sparse",
        "non_local.axes=sparse",
        "non_local.subsample=sparse",
        "non_local.norm=sparse",
        "non_local.init=sparse",
    ],
)
@pytest.mark.parametrize("block", [[], ["non_local.res3=[0]"]])
def test_a_wrong_value_is_reported_with_its_key(setting: str, block: list[str]):
    with pytest.raises(UsageError) as error:
        build(*block, setting)
    assert f"model.{setting.partition('=')[0]}=" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_position_that_is_named_twice_is_refused():
    with pytest.raises(UsageError, match=r"res4=\[0, 0\] names a block twice"):
        build("non_local.res4=[0,0]")


@pytest.mark.parametrize(
    ("settings", "frames"),
    [([], 1), (["head_window=[99,99]"], 8), (["pool1_kernel=[9,3,3]", "conv1_stride=[2,2,2]"], 8)],
)
def test_clips_that_are_too_small_are_reported_in_one_line(
    settings: list[str], frames: int, caplog: pytest.LogCaptureFixture
):
    with pytest.raises(UsageError, match=rf"clips of {frames} frames and 64 x 64 pixels") as error:
        check_clips(config(*settings), frames, [64])
    assert "\n" not in str(error.value) and not caplog.records
    with pytest.raises(UsageError, match=r"data\.clip, model\.pool2_kernel, model\.head_window"):
        describe_model(config(*settings), 3, num_frames=frames, crop_size=64)
    check_clips(config(), 8, [64])
    assert describe_model(config(), 3, num_frames=8, crop_size=64)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["non_local.group_frames.res3=3"], "group_frames=3 does not divide the 4 frames"),
        (
            ["non_local.group_frames.res3=1", "non_local.subsample_kernel=[2,2,2]"],
            "subsample_kernel=[2, 2, 2] pools frames of different groups",
        ),
    ],
)
def test_a_block_that_does_not_suit_the_clips_is_reported_by_its_key(
    settings: list[str], message: str
):
    with pytest.raises(UsageError) as error:
        check_clips(config("non_local.res3=[0]", *settings), 8, [64])
    assert str(error.value).startswith(f"model.non_local.{message}")
