"""Build the index and the loader of a split from a DataConfig."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nlnet.checks import at_least, one_of, positive, section, within
from nlnet.clip import ClipBatch, Failure
from nlnet.config import ClipConfig, DataConfig, ViewsConfig
from nlnet.data.augmentation.build import (
    WHOLE,
    build_eval_transform,
    build_mixing,
    build_train_clips,
    build_train_transform,
)
from nlnet.data.clip_sampling import (
    ClipProtocol,
    ClipShape,
    FixedClips,
    IndexRule,
    RandomClip,
    choose_protocol,
)
from nlnet.data.dataset import VideoDataset, collate
from nlnet.data.decoding.opening import choose_decoder, video_opener
from nlnet.data.decoding.probing import PROBES, probe_files
from nlnet.data.decoding.reader import OpenVideo, VideoReader
from nlnet.data.flips import directional_names
from nlnet.data.index.labels import read_class_names
from nlnet.data.index.read import read_index
from nlnet.data.index.video_index import VideoIndex
from nlnet.data.loader import EvalLoader, TrainLoader
from nlnet.data.order import EpochOrder, EvaluationOrder
from nlnet.data.setting_names import SettingNames
from nlnet.data.views import Transform
from nlnet.data.weighting import balanced_weights, read_video_weights
from nlnet.data.windows import WindowViews
from nlnet.data.workers.build import MAX_WORKERS, build_batches, micro_batch_size
from nlnet.errors import UsageError

REPLACEMENTS = 10  # how many other videos training tries instead of an unreadable one
KEYS = SettingNames(
    root="data.root",
    videos="data.videos",
    classes="data.classes",
    allow_missing="data.allow_missing",
    allow_bad="data.allow_bad",
)


def data_class_names(cfg: DataConfig) -> tuple[str, ...]:
    """The class names of a data set: from its file of classes, or else from its training split."""
    return _listed_classes(cfg) or _train_index(cfg).class_names


def build_train_loader(
    cfg: DataConfig,
    *,
    seed: int,
    accumulate: int,
    rank: int,
    world_size: int,
    pin_memory: bool = False,
    left_out: Collection[str] = (),
) -> TrainLoader:
    """Random clips of the training split, for one rank.

    An optimizer step uses `cfg.batch_size` clips, over all ranks and accumulation steps. The files
    `left_out` are treated as if they were not in the split. Raises UsageError, with the key, for a
    wrong setting.
    """
    micro_batch = micro_batch_size(cfg.batch_size, world_size, accumulate, cfg.repeats)
    at_least("seed", seed, 0)
    clips = build_train_clips(cfg.augment, cfg.clip, RandomClip(*_clips(cfg.clip)))
    transform = build_train_transform(cfg.augment, cfg.clip.crop_size)
    index = _train_index(cfg).without(left_out)
    dataset = VideoDataset(
        index,
        clips,
        transform,
        open_video=_opener(cfg),
        seed=seed,
        replacements=REPLACEMENTS,
        copies=cfg.repeats,
        target_fps=_target_fps(cfg),
    )
    order = EpochOrder(
        len(index),
        seed=seed,
        batch_size=cfg.batch_size // cfg.repeats,
        accumulate=accumulate,
        rank=rank,
        world_size=world_size,
        replacements=REPLACEMENTS,
        weights=_sampling_weights(cfg, index),
        groups=index.labels if index.labels.ndim == 1 else None,
    )
    videos = micro_batch // cfg.repeats
    samples = build_mixing(
        cfg.augment, dataset, classes=len(index.class_names), seed=seed, videos_per_batch=videos
    )
    batches = build_batches(
        samples, order, videos, num_workers=cfg.num_workers, pin_memory=pin_memory
    )
    return TrainLoader(
        index,
        batches,
        order,
        batch_size=micro_batch,
        remarks=_remarks(cfg, index),
        settings=KEYS,
    )


def find_broken(cfg: DataConfig) -> tuple[list[Failure], int]:
    """The training files that data.probe finds broken, and the number of training videos."""
    probe = one_of("data.probe", cfg.probe, PROBES)
    if probe is None:
        return [], 0
    index = _train_index(cfg)
    return probe_files(map(index.path, range(len(index))), probe, index.open), len(index)


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
    max_batches: int | None = None,
) -> EvalLoader:
    """All views of the videos of a split, for one rank.

    `class_names` are those of a trained model; without them, the classes are those of the data
    set. `key` is the section of `views`. With `max_batches`, only so many videos as this number of
    batches on each rank needs. Raises UsageError, with the key, for a wrong setting.
    """
    clips, transform = _eval_views(cfg, views, key)
    videos_per_batch = _videos_per_batch(views, key)
    index = _read_index(cfg, split, class_names or data_class_names(cfg))
    if max_batches is not None:
        index = index.spread(max_batches * videos_per_batch * world_size)
    dataset = _fixed_views(cfg, index, clips, transform, _opener(cfg))
    order = EvaluationOrder(len(index), rank=rank, world_size=world_size)
    batches = build_batches(
        dataset, order, videos_per_batch, num_workers=cfg.num_workers, pin_memory=pin_memory
    )
    return EvalLoader(index, batches, order, allow_bad=cfg.allow_bad, settings=KEYS)


def build_video_views(cfg: DataConfig, video: VideoReader) -> ClipBatch:
    """The views of data.test_views of one open video. Its label is 0 and has no meaning."""
    return collate([_unlabeled(cfg, [video.path], lambda path, file=None, known=None: video)[0, 0]])


def build_files_loader(cfg: DataConfig, paths: Sequence[Path]) -> Iterator[tuple[int, ClipBatch]]:
    """The number of the next files, and their views of data.test_views; some may have failed."""
    size = _videos_per_batch(cfg.test_views, "data.test_views")
    order = EvaluationOrder(len(paths), rank=0, world_size=1)
    workers = cfg.num_workers if len(paths) > MAX_WORKERS else 0  # their start takes seconds
    batches = build_batches(_unlabeled(cfg, paths, _opener(cfg)), order, size, num_workers=workers)
    for first, batch in zip(range(0, len(paths), size), batches, strict=True):
        yield min(size, len(paths) - first), batch


def build_window_views(cfg: DataConfig) -> WindowViews:
    """The views of a part of a video: the clips of data.clip, the center crop of test_views."""
    clips, transform = _eval_views(cfg, replace(cfg.test_views, num_crops=1), "data.test_views")
    return WindowViews(
        clips, transform, covers_all=cfg.clip.sampler == "segments", target_fps=_target_fps(cfg)
    )


def _opener(cfg: DataConfig) -> OpenVideo:
    positive("data.decode_seconds", cfg.decode_seconds)
    with section("data"):
        reader = choose_decoder(cfg.decoder)
    return video_opener(reader, cfg.decode_seconds)


def _videos_per_batch(views: ViewsConfig, key: str) -> int:
    at_least(f"{key}.batch_size", views.batch_size, 1)
    if views.crops == WHOLE:  # all clips of one video have one size
        return 1
    return max(views.batch_size // (views.num_clips * views.num_crops), 1)


def _unlabeled(cfg: DataConfig, paths: Sequence[Path], open_video: OpenVideo) -> VideoDataset:
    clips, transform = _eval_views(cfg, cfg.test_views, "data.test_views")
    index = VideoIndex(list(paths), [0] * len(paths), ("unknown",))
    return _fixed_views(cfg, index, clips, transform, open_video)


def _fixed_views(
    cfg: DataConfig,
    index: VideoIndex,
    clips: FixedClips,
    transform: Transform,
    open_video: OpenVideo,
) -> VideoDataset:
    """The views of the videos of an index, none of them random or replaced."""
    return VideoDataset(
        index,
        clips,
        transform,
        open_video=open_video,
        seed=0,
        replacements=0,
        target_fps=_target_fps(cfg),
    )


def _read_index(cfg: DataConfig, split: str, class_names: tuple[str, ...] | None) -> VideoIndex:
    return read_index(
        Path(cfg.root),
        split,
        videos=cfg.videos,
        class_names=class_names,
        numbered_names=_listed_classes(cfg),
        allow_missing=cfg.allow_missing,
        settings=KEYS,
    )


def _train_index(cfg: DataConfig) -> VideoIndex:
    """The training split, read once: without a file of classes, its class names are its own."""
    return _read_index(cfg, cfg.train, _listed_classes(cfg))


def _listed_classes(cfg: DataConfig) -> tuple[str, ...] | None:
    return None if cfg.classes is None else read_class_names(Path(cfg.root) / cfg.classes, KEYS)


def _remarks(cfg: DataConfig, index: VideoIndex) -> tuple[str, ...]:
    """Lines about settings that do not fit the training videos; they are no errors."""
    lines = [*index.remarks]
    clips = len(index) * cfg.repeats
    if cfg.batch_size > clips:
        lines.append(
            f"data.batch_size={cfg.batch_size} is larger than the training split of {len(index)} "
            f"videos, so that each step repeats videos; {clips} or less is faster"
        )
    names = directional_names(index.class_names)
    if cfg.augment.flip and names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        lines.append(
            f"data.augment.flip=true mirrors half of the training clips, but their labels stay the "
            f"same; class names mention a direction ({', '.join(names[:3])}{more}): set "
            "data.augment.flip=false if a mirrored video belongs to another class"
        )
    return tuple(lines)


def _eval_views(cfg: DataConfig, views: ViewsConfig, key: str) -> tuple[FixedClips, Transform]:
    """The clips that are read from a video, and the crops that are taken from each of them."""
    protocol, shape, rule = _clips(cfg.clip)
    transform = build_eval_transform(views, key)
    at_least(f"{key}.num_clips", views.num_clips, 1)
    return FixedClips(protocol, shape, rule, views.num_clips), transform


def _target_fps(cfg: DataConfig) -> float | None:
    """The rate that distances of frames are counted in."""
    if cfg.target_fps is not None:
        positive("data.target_fps", cfg.target_fps)
        if cfg.clip.sampler == "segments":
            raise UsageError(
                f"data.target_fps={cfg.target_fps} is for distances of frames, which "
                "data.clip.sampler=segments does not use; set it to null"
            )
    return cfg.target_fps


def _sampling_weights(cfg: DataConfig, index: VideoIndex) -> np.ndarray | None:
    """How often each training video is drawn; None if each comes once an epoch."""
    within("data.balance", cfg.balance, 0, 1)
    weights = balanced_weights(index, cfg.balance)
    if cfg.video_weights is not None:
        root = Path(cfg.root)
        weights = weights * read_video_weights(root / cfg.video_weights, root / cfg.videos, index)
    elif cfg.balance == 0:
        return None
    return weights


def _clips(clip: ClipConfig) -> tuple[ClipProtocol, ClipShape, IndexRule]:
    with section("data.clip"):
        protocol, rule = choose_protocol(clip.sampler, clip.short)
    at_least("data.clip.num_frames", clip.num_frames, 1)
    at_least("data.clip.frame_stride", clip.frame_stride, 1)
    return protocol, ClipShape(clip.num_frames, clip.frame_stride), rule
