"""The choices of configs/augmentation."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from torch.nn.functional import max_pool2d

from nlnet.cli.choices import CONFIG_DIR, choices
from nlnet.cli.compose import to_run
from nlnet.config import AugmentConfig, RunConfig, register_schemas
from nlnet.data.augmentation.build import build_train_clips, build_train_transform
from nlnet.data.clip_sampling import ClipShape, RandomClip, choose_protocol

PRESETS = choices("augmentation")


@cache
def preset(name: str, *words: str) -> RunConfig:
    register_schemas()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        words = ("data.root=videos", f"augmentation={name}", *words)
        return to_run(compose("run", overrides=list(words)))


def test_the_presets_of_the_pages_exist():
    assert PRESETS == ["gesture", "modern", "paper"]


def test_paper_is_the_default_and_sets_only_defaults():
    assert preset("paper").data.augment == AugmentConfig()
    register_schemas()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        assert to_run(compose("run", overrides=["data.root=videos"])) == preset("paper")


def test_a_recipe_and_an_experiment_keep_their_own_crops():
    run = preset("paper", "recipe=charades")
    assert run.data.augment.short_side == [329, 411]
    run = preset("modern", "+experiment=gestures")
    assert run.data.augment.flip is False and run.data.augment.mixup == 0.8


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_gives_views(name: str):
    data = preset(name).data
    transform = build_train_transform(data.augment, 32)
    frames = np.random.default_rng(0).integers(0, 256, (4, 40, 60, 3), dtype=np.uint8)
    (view,) = transform(frames, np.random.default_rng(0))
    assert view.shape == (3, 4, 32, 32) and view.dtype == torch.uint8


def test_gesture_keeps_left_and_right_and_time():
    """A bar that moves to the right is where it was in the clip that is only cropped."""
    cfg = preset("gesture").data.augment
    assert not (cfg.flip or cfg.mixup or cfg.cutmix or cfg.time_jitter or cfg.time_reversal)
    assert cfg.rand_operations == "color"
    frames = np.full((5, 64, 64, 3), 60, np.uint8)
    for i in range(5):
        frames[i, :, 8 + 10 * i : 14 + 10 * i] = 200
    cfg = replace(cfg, color_jitter=0.0)  # its contrast takes the mean of each frame
    transform = build_train_transform(cfg, 32)
    cropped = build_train_transform(replace(cfg, rand_augment=0, erasing=0.0), 32)
    for seed in range(40):  # the crop is drawn first
        places = [
            (view[:, 1:] != view[:, :-1]).any(0)  # where a frame differs from the frame before
            for (view,) in (f(frames, np.random.default_rng(seed)) for f in (transform, cropped))
        ]
        near = max_pool2d(places[1].float(), 5, 1, 2) > 0  # sharpness, twice: two pixels
        assert not (places[0] & ~near).any()
        assert places[0].any()
    protocol, rule = choose_protocol("dense", "loop")
    sampler = RandomClip(protocol, ClipShape(8, 8), rule)
    assert build_train_clips(cfg, preset("gesture").data.clip, sampler) is sampler
