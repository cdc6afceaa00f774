"""Keys of `data`: videos, clips, augmentation and views."""

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass
class ClipConfig:
    """A clip: T frames at a distance of tau frames, cropped to a square."""

    num_frames: int = 8  # T
    frame_stride: int = 8  # tau, in frames of the file
    sampler: str = "dense"  # a name in SAMPLERS of nlnet/data/clip_sampling.py
    # Frames of a video that is too short: loop (repeat from the start) or hold (repeat the last).
    short: str = "loop"
    crop_size: int = 224  # side of the square crop, in pixels


@dataclass
class AugmentConfig:
    """Random changes of the training clips."""

    crop: str = "jitter"  # jitter (random short side, then a square) or resized (random area)
    short_side: list[int] = field(default_factory=lambda: [256, 320])  # jitter: range in pixels
    area: list[float] = field(default_factory=lambda: [0.35, 1.0])  # resized: share of the frame
    flip: bool = True  # left-right; set to false if a label depends on the direction
    color_jitter: float = 0.0  # strength of brightness, contrast and saturation changes
    rand_augment: int = 0  # operations of RandAugment for each clip
    rand_strength: float = 0.3  # of these operations, from 0 to 1
    rand_operations: str = "all"  # all, or color: operations that move no pixel
    erasing: float = 0.0  # probability that a random rectangle of the clip is filled with noise
    # Pairs of clips and their labels are mixed. The shares have a Beta(x, x) distribution; 0: off.
    mixup: float = 0.0  # blend the clips
    cutmix: float = 0.0  # put a rectangle of one clip into the other one
    mix_probability: float = 1.0  # that a pair is mixed
    time_jitter: float = 0.0  # j: a clip is played 1 - j to 1 + j times as fast
    time_reversal: float = 0.0  # probability that a clip is played backwards


@dataclass
class ViewsConfig:
    """The views of a held-out video (clips x crops), and how their scores are combined."""

    num_clips: int = 10  # along time
    num_crops: int = 3  # along the longer side: 1 or 3
    crop_size: int = 256  # pixels
    short_side: int = 256  # the frame is resized to this short side first, in pixels
    batch_size: int = 8  # views in one forward pass of one rank
    # Positions of three crops: a name in CROPS of nlnet/data/transforms.py. whole: no crop, but the
    # whole frame with this short side; num_crops is then 1, and crop_size is not used.
    crops: str = "spread"
    ensemble: str = "mean"  # the video's score of each class over its views: mean or max


@dataclass
class DataConfig:
    """The videos, and how clips are taken from them."""

    root: str = MISSING  # folder that contains the splits
    # A split, relative to root, is a folder of class folders, a CSV file of Kinetics or Charades,
    # or a list with one `path label` per line (`path label,label` for several labels a video).
    # `file.csv#val` selects the rows whose split column is val.
    train: str = "train"
    val: str = "val"  # evaluated after each epoch
    test: str = "val"  # evaluated by tools/eval.py
    # Folder that the entries of CSV files, lists and manifests refer to, relative to root; or the
    # URL of a folder of shards.
    videos: str = "."
    # File with one class name per line, relative to root; null: class names come from the split.
    classes: str | None = None
    allow_missing: bool = False  # skip listed videos that have no file, and report their number
    # Before the first step of a run, look for training files that cannot be read, and leave them
    # out: none, open (read each header), decode (decode each file).
    probe: str = "none"
    # Training stops if more than this share of the requested videos cannot be read.
    max_bad_share: float = 0.01
    allow_bad: bool = False  # evaluation: count an unreadable video as wrong instead of stopping
    # pyav, or torchcodec (an extra), which does not report damaged frames.
    decoder: str = "pyav"
    # CPU time in which a video is decoded; one that needs more is counted as unreadable.
    decode_seconds: float = 300.0
    batch_size: int = 64  # clips per optimizer step, over all ranks and accumulation steps
    # Training clips that each reading of a file gives; a batch then has fewer videos, an epoch more
    # steps, and each video as many clips in an epoch.
    repeats: int = 1
    # Above 0, a video of a class with n videos is drawn in proportion to n^-balance; 1: all classes
    # are equally frequent. An epoch keeps its length, so that some videos come several times.
    balance: float = 0.0
    # A file, relative to root, with a line `path weight` for videos that are drawn more or less
    # often than others, which have the weight 1. Paths are relative to the folder of the videos.
    video_weights: str | None = None
    num_workers: int | None = None  # decoding processes per rank; null: chosen for the machine
    # Count the distance of frames in time: with data.clip.frame_stride=8 and target_fps=30, frames
    # are 8/30 s apart in every video. null: distances are numbers of frames of the file.
    target_fps: float | None = None
    clip: ClipConfig = field(default_factory=ClipConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    val_views: ViewsConfig = field(
        default_factory=lambda: ViewsConfig(num_clips=1, num_crops=1, crop_size=224, batch_size=16)
    )
    test_views: ViewsConfig = field(default_factory=ViewsConfig)
