"""DataConfig and a split -> a loader."""

import os
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from nlnet.checks import one_of
from nlnet.clip import Sample
from nlnet.config import AugmentConfig, DataConfig, ViewsConfig
from nlnet.data.clip_sampling import ClipShape, FixedClips, RandomClip, choose_protocol
from nlnet.data.dataset import Transform, VideoDataset, collate
from nlnet.data.index.index import VideoIndex, read_class_names, read_index
from nlnet.data.loader import EvalLoader, TrainLoader
from nlnet.data.order import EpochOrder, evaluation_order
from nlnet.errors import UsageError

MAX_WORKERS = 8
REPLACEMENTS = 10  # other videos that training tries in place of an unreadable one


def build_index(
    cfg: DataConfig, split: str, class_names: tuple[str, ...] | None = None
) -> VideoIndex:
    """The videos of a split; without `class_names`, those of `data_class_names`."""
    if class_names is None:
        class_names = data_class_names(cfg)
    return read_index(
        Path(cfg.root),
        split,
        videos=cfg.videos,
        class_names=class_names,
        allow_missing=cfg.allow_missing,
    )


def data_class_names(cfg: DataConfig) -> tuple[str, ...]:
    """The class names of a data set: from its classes file if it has one, else its train split."""
    if cfg.classes is not None:
        return read_class_names(Path(cfg.root) / cfg.classes)
    train = read_index(
        Path(cfg.root), cfg.train, videos=cfg.videos, allow_missing=cfg.allow_missing
    )
    return train.class_names


def build_train_loader(
    cfg: DataConfig,
    *,
    seed: int,
    accumulate: int,
    rank: int,
    world_size: int,
    pin_memory: bool = False,
) -> TrainLoader:
    """Random clips of the train split, `cfg.batch_size` of them per optimiser step of all ranks."""
    micro_batch = _micro_batch(cfg.batch_size, world_size, accumulate)
    if seed < 0:
        raise UsageError(f"seed={seed} is negative; use 0 or more")
    protocol, rule = choose_protocol(cfg.clip.sampler, cfg.clip.short)
    transform = _train_transform(cfg.augment, cfg.clip.crop_size)
    index = build_index(cfg, cfg.train)
    dataset = VideoDataset(
        index,
        RandomClip(protocol, _clip_shape(cfg), rule),
        transform,
        seed=seed,
        replacements=REPLACEMENTS,
    )
    order = EpochOrder(
        len(index),
        seed=seed,
        batch_size=cfg.batch_size,
        accumulate=accumulate,
        rank=rank,
        world_size=world_size,
    )
    batches = _batches(
        dataset, order, micro_batch, num_workers=cfg.num_workers, pin_memory=pin_memory
    )
    return TrainLoader(index, batches, order, batch_size=micro_batch)


def build_eval_loader(
    cfg: DataConfig,
    split: str,
    views: ViewsConfig,
    *,
    rank: int,
    world_size: int,
    class_names: tuple[str, ...] | None = None,
    pin_memory: bool = False,
    key: str = "data.test_views",
) -> EvalLoader:
    """All views of this rank's videos of a split; `class_names` are those of a trained model.

    Raises UsageError naming what is wrong with the views below `key`.
    """
    protocol, rule = choose_protocol(cfg.clip.sampler, cfg.clip.short)
    transform = _eval_transform(views, key)
    num_clips = _at_least_1(f"{key}.num_clips", views.num_clips)
    batch_size = _at_least_1(f"{key}.batch_size", views.batch_size)
    index = build_index(cfg, split, class_names)
    dataset = VideoDataset(
        index,
        FixedClips(protocol, _clip_shape(cfg), rule, num_clips),
        transform,
        seed=0,
        replacements=0,
    )
    videos_per_batch = max(batch_size // (num_clips * views.num_crops), 1)
    order = evaluation_order(len(index), rank=rank, world_size=world_size)
    batches = _batches(
        dataset, order, videos_per_batch, num_workers=cfg.num_workers, pin_memory=pin_memory
    )
    return EvalLoader(index, batches, allow_bad=cfg.allow_bad)


def _batches(
    dataset: VideoDataset,
    order: EpochOrder | list[tuple[int, int]],
    batch_size: int,
    *,
    num_workers: int | None,
    pin_memory: bool,
) -> DataLoader[Sample]:
    if num_workers is None:
        num_workers = _default_workers()
    if num_workers < 0:
        raise UsageError(f"data.num_workers={num_workers} is negative; use 0 or more, or null")
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=order,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        # its own generator: the loader would draw from the global one, by the number of epochs
        generator=torch.Generator(),
    )


def _default_workers() -> int:
    """One decoding process per CPU that this rank can have; none where it has only one CPU."""
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    cpus = len(os.sched_getaffinity(0)) // ranks_here
    return min(cpus, MAX_WORKERS) if cpus > 1 else 0


def _micro_batch(batch_size: int, world_size: int, accumulate: int) -> int:
    parts = world_size * accumulate
    if batch_size < 1 or batch_size % parts:
        below = batch_size // parts * parts
        sizes = f"{below} or {below + parts}" if below > 0 else f"{parts}"
        raise UsageError(
            f"data.batch_size={batch_size} does not divide by {world_size} ranks x "
            f"{accumulate} accumulation steps; use {sizes}"
        )
    return batch_size // parts


def _at_least_1(key: str, number: int) -> int:
    if number < 1:
        raise UsageError(f"{key}={number} is not positive; use 1 or more")
    return number


def _clip_shape(cfg: DataConfig) -> ClipShape:
    return ClipShape(
        _at_least_1("data.clip.num_frames", cfg.clip.num_frames),
        _at_least_1("data.clip.frame_stride", cfg.clip.frame_stride),
    )


def _train_transform(augment: AugmentConfig, crop_size: int) -> Transform:
    # imports torchvision: seconds, that --help and a mistyped key need not wait for
    from nlnet.data.transforms import Crop, JitterCrop, ResizedCrop, TrainTransform

    if not 0 <= augment.color_jitter <= 1:
        raise UsageError(f"data.augment.color_jitter={augment.color_jitter} is not within 0 and 1")
    _at_least_1("data.clip.crop_size", crop_size)
    crop: Crop
    match augment.crop, augment.short_side, augment.area:
        case "jitter", [shortest, longest], _ if crop_size <= shortest <= longest:
            crop = JitterCrop(crop_size, shortest, longest)
        case "resized", _, [smallest, largest] if 0 < smallest <= largest <= 1:
            crop = ResizedCrop(smallest, largest)
        case "jitter", _, _:
            raise UsageError(
                f"data.augment.short_side={augment.short_side} is not [shortest, longest], "
                f"both at least data.clip.crop_size={crop_size}"
            )
        case "resized", _, _:
            raise UsageError(
                f"data.augment.area={augment.area} is not [smallest, largest], "
                "both above 0 and at most 1"
            )
        case _:
            raise UsageError(f"data.augment.crop={augment.crop} is neither jitter nor resized")
    return TrainTransform(crop, crop_size, augment.flip, augment.color_jitter)


def _eval_transform(views: ViewsConfig, key: str) -> Transform:
    from nlnet.data.transforms import CROPS, EvalTransform  # imports torchvision: seconds

    if views.num_crops not in (1, 3):
        raise UsageError(f"{key}.num_crops={views.num_crops} is neither 1 nor 3")
    if not 1 <= views.crop_size <= views.short_side:
        raise UsageError(
            f"{key}.crop_size={views.crop_size} is not within 1 and "
            f"{key}.short_side={views.short_side}"
        )
    places = one_of(f"{key}.crops", views.crops, CROPS)
    return EvalTransform(views.crop_size, views.short_side, views.num_crops, places)
