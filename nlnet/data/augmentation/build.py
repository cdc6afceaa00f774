"""Build the views of clips, and the random changes of training clips, from their configs."""

from typing import TYPE_CHECKING

from torch.utils.data import Dataset

from nlnet.checks import at_least, below, one_of, within
from nlnet.clip import Sample
from nlnet.config import AugmentConfig, ClipConfig, ViewsConfig
from nlnet.data.augmentation.mixing import MixedPairs, Mixing
from nlnet.data.augmentation.time import TimeChange
from nlnet.data.clip_sampling import ClipSampler, RandomClip
from nlnet.data.views import Transform
from nlnet.errors import UsageError

if TYPE_CHECKING:
    from nlnet.data.transforms import Crop

KEY = "data.augment"
WHOLE = "whole"  # instead of a name of CROPS: no crop


def build_train_transform(augment: AugmentConfig, crop_size: int) -> Transform:
    """One random view of frames. Raises UsageError, with the key, for a wrong setting."""
    # The import takes seconds, and neither --help nor a misspelled key should wait for it.
    from nlnet.data.augmentation.changes import RandAugment, RandomErasing
    from nlnet.data.augmentation.operations import OPERATION_SETS
    from nlnet.data.transforms import Change, TrainTransform

    crop = _build_crop(augment, crop_size)
    within(f"{KEY}.color_jitter", augment.color_jitter, 0, 1)
    at_least(f"{KEY}.rand_augment", augment.rand_augment, 0)
    within(f"{KEY}.rand_strength", augment.rand_strength, 0, 1)
    within(f"{KEY}.erasing", augment.erasing, 0, 1)
    operations = one_of(f"{KEY}.rand_operations", augment.rand_operations, OPERATION_SETS)
    changes: list[Change] = []
    if augment.rand_augment:
        changes.append(RandAugment(operations, augment.rand_augment, augment.rand_strength))
    if augment.erasing:
        changes.append(RandomErasing(augment.erasing))
    return TrainTransform(crop, crop_size, augment.flip, augment.color_jitter, tuple(changes))


def build_train_clips(augment: AugmentConfig, clip: ClipConfig, sampler: RandomClip) -> ClipSampler:
    """One random clip, with another speed or direction if the settings ask for it."""
    below(f"{KEY}.time_jitter", augment.time_jitter, 1)
    at_least(f"{KEY}.time_jitter", augment.time_jitter, 0)
    within(f"{KEY}.time_reversal", augment.time_reversal, 0, 1)
    if augment.time_jitter and clip.sampler == "segments":
        raise UsageError(
            f"{KEY}.time_jitter={augment.time_jitter} changes the distance of frames, which "
            "data.clip.sampler=segments does not use; set it to 0"
        )
    if not augment.time_jitter and not augment.time_reversal:
        return sampler
    return TimeChange(sampler, augment.time_jitter, augment.time_reversal)


def build_mixing(
    augment: AugmentConfig,
    dataset: Dataset[Sample],
    *,
    classes: int,
    seed: int,
    videos_per_batch: int,
) -> Dataset[Sample]:
    """The data set with mixed pairs; the data set itself if mixing is off.

    `videos_per_batch` is the number of videos in a micro-batch, which must be even.
    """
    at_least(f"{KEY}.mixup", augment.mixup, 0)
    at_least(f"{KEY}.cutmix", augment.cutmix, 0)
    within(f"{KEY}.mix_probability", augment.mix_probability, 0, 1)
    if not augment.mixup and not augment.cutmix:
        return dataset
    if videos_per_batch % 2:
        raise UsageError(
            f"{KEY}.mixup and {KEY}.cutmix mix pairs of videos, but each forward pass of a rank "
            f"has {videos_per_batch}; choose data.batch_size so that this number is even"
        )
    mixing = Mixing(augment.mixup, augment.cutmix, augment.mix_probability)
    return MixedPairs(dataset, mixing, num_classes=classes, seed=seed)


def build_eval_transform(views: ViewsConfig, key: str) -> Transform:
    """The crops of frames, which are not random. `key` is the section of `views`."""
    from nlnet.data.transforms import CROPS, EvalTransform, WholeFrame  # the import takes seconds

    if views.crops == WHOLE:
        at_least(f"{key}.short_side", views.short_side, 1)
        if views.num_crops != 1:
            raise UsageError(
                f"{key}.num_crops={views.num_crops} must be 1 for whole frames ({key}.crops=whole)"
            )
        return WholeFrame(views.short_side)
    if views.num_crops not in (1, 3):
        raise UsageError(f"{key}.num_crops={views.num_crops} must be 1 or 3")
    if not 1 <= views.crop_size <= views.short_side:
        raise UsageError(
            f"{key}.crop_size={views.crop_size} must be from 1 to {views.short_side} "
            f"({key}.short_side)"
        )
    one_of(f"{key}.crops", views.crops, {**CROPS, WHOLE: None})
    return EvalTransform(views.crop_size, views.short_side, views.num_crops, CROPS[views.crops])


def _build_crop(augment: AugmentConfig, crop_size: int) -> "Crop":
    from nlnet.data.transforms import JitterCrop, ResizedCrop

    at_least("data.clip.crop_size", crop_size, 1)
    match augment.crop, augment.short_side, augment.area:
        case "jitter", [shortest, longest], _ if crop_size <= shortest <= longest:
            return JitterCrop(crop_size, shortest, longest)
        case "resized", _, [smallest, largest] if 0 < smallest <= largest <= 1:
            return ResizedCrop(smallest, largest)
        case "jitter", _, _:
            raise UsageError(
                f"{KEY}.short_side={augment.short_side} must be [shortest, longest], "
                f"both {crop_size} (data.clip.crop_size) or more"
            )
        case "resized", _, _:
            raise UsageError(
                f"{KEY}.area={augment.area} must be [smallest, largest], both above 0 and at most 1"
            )
    raise UsageError(f"{KEY}.crop={augment.crop} is unknown; choose one of: jitter, resized")
