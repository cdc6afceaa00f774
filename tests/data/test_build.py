import gc
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from nlnet.clip import ClipBatch
from nlnet.config import AugmentConfig, ClipConfig, DataConfig, ViewsConfig
from nlnet.data import build
from nlnet.data.build import build_eval_loader, build_train_loader, data_class_names
from nlnet.data.clip_sampling import INDEX_RULES, SAMPLERS, ClipShape, RandomClip
from nlnet.data.decoding.opening import open_video
from nlnet.data.index.read import read_index
from nlnet.data.index.video_index import VideoIndex
from nlnet.data.transforms import JitterCrop, TrainTransform
from nlnet.errors import UsageError, UserError
from tests.data.frame_folders import extract_frames

VideoFactory = Callable[..., Path]

# A test may use more workers than the machine has CPUs.
MORE_WORKERS_THAN_CPUS = "ignore:This DataLoader will create"


@pytest.fixture
def data(video_file: VideoFactory, tmp_path: Path) -> DataConfig:
    """10 training and 5 validation videos of 2 classes."""
    for split, count in (("train", 5), ("val", 3)):
        for name in ("eat", "walk"):
            for i in range(count - (split == "val" and name == "walk")):
                video_file(f"{split}/{name}/{i}.mp4", num_frames=20 + i)
    cfg = DataConfig(root=str(tmp_path), batch_size=4, num_workers=0)
    cfg.clip = ClipConfig(num_frames=4, frame_stride=2, crop_size=16)
    cfg.augment.short_side = [20, 30]
    return cfg


VIEWS = ViewsConfig(num_clips=2, num_crops=3, crop_size=16, short_side=16, batch_size=12)


def train(cfg: DataConfig, *, seed: int = 1, accumulate: int = 1, rank: int = 0, world: int = 1):
    return build_train_loader(cfg, seed=seed, accumulate=accumulate, rank=rank, world_size=world)


def evaluation(cfg: DataConfig, *, rank: int = 0, world: int = 1, views: ViewsConfig = VIEWS):
    return build_eval_loader(cfg, cfg.val, views, rank=rank, world_size=world)


def tensors(batches: list[ClipBatch]) -> list[Tensor]:
    return [tensor for batch in batches for tensor in batch[:3]]


def assert_equal(a: list[ClipBatch], b: list[ClipBatch]) -> None:
    for x, y in zip(tensors(a), tensors(b), strict=True):
        assert torch.equal(x, y)
    assert [batch.failures for batch in a] == [batch.failures for batch in b]


def test_training_batches(data: DataConfig):
    loader = train(data)
    assert loader.index.class_names == ("eat", "walk")
    assert loader.steps_per_epoch == 2
    batches = list(loader.at(0))
    assert [batch.video.shape for batch in batches] == 2 * [(4, 3, 4, 16, 16)]
    for batch in batches:
        assert batch.video.dtype == torch.uint8
        assert batch.label.tolist() == loader.index.labels[batch.video_id].tolist()


@pytest.mark.parametrize("make", [train, evaluation])
def test_workers_end_with_their_loader(data: DataConfig, make: Callable):
    """Without the garbage collector, which would wait 5 s for each of them."""
    data.num_workers = 1
    gc.collect()
    gc.disable()
    try:
        loader = make(data)
        for batch in loader.at(0, known={}) if make is train else loader:
            assert len(batch.label) > 0
        workers = list(loader._batches._iterator._workers)
        assert all(worker.is_alive() for worker in workers)
        del loader, batch
        assert not any(worker.is_alive() for worker in workers)
    finally:
        gc.enable()


@pytest.mark.filterwarnings(MORE_WORKERS_THAN_CPUS)
@pytest.mark.parametrize("num_workers", [1, 3])
def test_the_number_of_workers_does_not_change_the_batches(
    num_workers: int, data: DataConfig, tmp_path: Path
):
    (tmp_path / "train" / "eat" / "bad.mp4").write_bytes(b"")
    here = train(data)
    epochs = [list(here.at(epoch)) for epoch in range(3)]
    assert any(batch.failures for batches in epochs for batch in batches)
    views = list(evaluation(data))
    data.num_workers = num_workers
    workers = train(data)
    for epoch in (2, 0, 1):  # persistent workers keep no state
        assert_equal(list(workers.at(epoch)), epochs[epoch])
    assert_equal(list(evaluation(data)), views)


def test_two_ranks_share_the_global_batch_of_one_process(data: DataConfig):
    whole = list(train(data).at(1))
    ranks = [list(train(data, rank=rank, world=2).at(1)) for rank in range(2)]
    for step, batch in enumerate(whole):
        parts = [batches[step] for batches in ranks]
        assert torch.equal(torch.cat([part.video for part in parts]), batch.video)
        assert torch.equal(torch.cat([part.label for part in parts]), batch.label)


def test_a_resumed_epoch_is_the_rest_of_the_whole_epoch(data: DataConfig):
    data.num_workers = 1
    loader = train(data, accumulate=2)
    whole = list(loader.at(3))
    assert len(whole) == 4
    next(iter(loader.at(4)))  # an epoch that ends early has no effect on others
    assert_equal(list(loader.at(3, 1)), whole[2:])
    assert_equal(list(train(data, accumulate=2).at(3, 1)), whole[2:])


def test_loading_does_not_change_the_global_generator(data: DataConfig):
    for num_workers in (0, 1):
        data.num_workers = num_workers
        loader = train(data)
        torch.manual_seed(0)
        expected = torch.random.get_rng_state()
        list(loader.at(0))
        list(loader.at(1))
        assert torch.equal(torch.random.get_rng_state(), expected)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_evaluation_has_each_view_of_each_video_once(world: int, data: DataConfig):
    seen: list[int] = []
    for rank in range(world):
        for batch in evaluation(data, rank=rank, world=world):
            assert len(batch.label) <= VIEWS.batch_size
            seen += batch.video_id.tolist()
    assert sorted(seen) == sorted(6 * list(range(5)))


def test_all_views_of_a_video_are_in_one_batch(data: DataConfig):
    loader = evaluation(data, views=ViewsConfig(3, 3, 16, 16, batch_size=4))
    assert [batch.video_id.tolist() for batch in loader] == [9 * [i] for i in range(5)]
    assert len(loader) == 5


def test_an_unreadable_video_stops_evaluation_unless_allowed(data: DataConfig, tmp_path: Path):
    bad = tmp_path / "val" / "eat" / "9.mp4"
    bad.write_bytes(b"")
    whole_line = r"^.*9\.mp4: Invalid data.*data\.allow_bad=true\Z"
    for num_workers in (0, 1):
        data.num_workers, data.allow_bad = num_workers, False
        with pytest.raises(UserError, match=whole_line):
            list(evaluation(data))
        data.allow_bad = True
        batches = list(evaluation(data))
        assert [failure.path for batch in batches for failure in batch.failures] == [str(bad)]
        assert {i for batch in batches for i in batch.video_id.tolist()} == {0, 1, 2, 4, 5}


def test_training_without_readable_videos_stops_with_one_line(data: DataConfig, tmp_path: Path):
    for path in (tmp_path / "train").rglob("*.mp4"):
        path.write_bytes(b"")
    for num_workers in (0, 1):
        data.num_workers = num_workers
        with pytest.raises(UserError, match=r"^too many videos .*\.mp4: .*data\.root.*\Z"):
            list(train(data).at(0))


def test_class_names_come_from_the_training_split_or_from_a_file(data: DataConfig, tmp_path: Path):
    assert data_class_names(data) == ("eat", "walk")
    (tmp_path / "classes.txt").write_text("walk\nrun\neat\n")
    data.classes = "classes.txt"
    assert data_class_names(data) == train(data).index.class_names == ("walk", "run", "eat")
    loader = build_eval_loader(
        data, "val", VIEWS, rank=0, world_size=1, class_names=("a", "eat", "walk")
    )
    assert loader.index.labels.tolist() == [1, 1, 1, 2, 2]


def test_loaders_read_each_split_once(data: DataConfig, monkeypatch: pytest.MonkeyPatch):
    read = []

    def counted(root: Path, split: str, **options) -> VideoIndex:
        read.append(split)
        return read_index(root, split, **options)

    monkeypatch.setattr(build, "read_index", counted)
    loader = train(data)
    build_eval_loader(
        data, data.val, VIEWS, rank=0, world_size=1, class_names=loader.index.class_names
    )
    assert read == ["train", "val"]


def test_numbers_of_a_list_count_data_classes(data: DataConfig, tmp_path: Path):
    """The network has the classes in another order, and one more."""
    lines = [
        f"train/{name}/{i}.mp4 {k}\n" for k, name in enumerate(("walk", "eat")) for i in (0, 1)
    ]
    (tmp_path / "all.txt").write_text("".join(lines))
    (tmp_path / "classes.txt").write_text("walk\neat\n")
    data.classes = "classes.txt"
    names = ("run", "eat", "walk")
    index = build_eval_loader(data, "all.txt", VIEWS, rank=0, world_size=1, class_names=names).index
    for i in range(4):
        assert names[index.labels[i]] == index.path(i).parent.name
    assert "data.classes" in index.remarks[0] and "1 only in the model (run)" in index.remarks[0]


def test_several_labels_are_rows_of_indicators(data: DataConfig, tmp_path: Path):
    (tmp_path / "all.txt").write_text("".join(f"train/eat/{i}.mp4 {i},0\n" for i in range(5)))
    data.train = data.val = "all.txt"
    for batch in [*train(data).at(0), *evaluation(data)]:
        assert batch.label.dtype == torch.float32
        expected = torch.zeros(len(batch.video_id), 5)
        for row, video in enumerate(batch.video_id.tolist()):
            expected[row, [0, video]] = 1
        assert torch.equal(batch.label, expected)


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(10, "8 or 12"), (2, "4"), (0, "4"), (-3, "4"), (13, "12 or 16")]
)
def test_a_batch_that_does_not_divide_is_refused(batch_size: int, sizes: str, data: DataConfig):
    data.batch_size = batch_size
    with pytest.raises(UsageError, match=rf"data\.batch_size={batch_size} .* use {sizes}$"):
        train(data, accumulate=2, world=2)


def strong(cfg: DataConfig) -> None:
    """Switch every augmentation on."""
    cfg.augment = AugmentConfig(
        crop="resized",
        color_jitter=0.2,
        rand_augment=2,
        erasing=0.5,
        mixup=0.8,
        cutmix=1.0,
        mix_probability=0.9,
        time_jitter=0.3,
        time_reversal=0.5,
    )


def test_the_clips_without_augmentation_are_those_of_the_first_release(data: DataConfig):
    """A key of a new augmentation draws no random number while it is off."""
    plain = list(train(data).at(1))
    transform = TrainTransform(JitterCrop(16, 20, 30), 16, flip=True, color_jitter=0.0)
    clip = RandomClip(SAMPLERS["dense"], ClipShape(4, 2), INDEX_RULES["loop"])
    index = train(data).index
    for batch in plain:
        for video, row in zip(batch.video, batch.video_id.tolist(), strict=True):
            rng = np.random.default_rng([1, 1, row, 0])
            with open_video(index.path(row)) as reader:
                frames = reader.read(clip(reader.num_frames, rng)[0])
            assert torch.equal(transform(frames, rng)[0], video)


@pytest.mark.filterwarnings(MORE_WORKERS_THAN_CPUS)
def test_strong_augmentation_depends_on_neither_workers_nor_ranks_nor_steps(data: DataConfig):
    strong(data)
    data.batch_size = 8
    (whole,) = train(data).at(2)
    assert whole.label.shape == (8, 2)
    torch.testing.assert_close(whole.label.sum(1), torch.ones(8))
    assert not ((whole.label == 0) | (whole.label == 1)).all()
    data.num_workers = 2
    assert_equal(list(train(data).at(2)), [whole])
    data.num_workers = 0
    ranks = [list(train(data, accumulate=2, rank=rank, world=2).at(2)) for rank in range(2)]
    parts = [ranks[rank][step] for step in range(2) for rank in range(2)]
    assert torch.equal(torch.cat([part.video for part in parts]), whole.video)
    assert torch.equal(torch.cat([part.label for part in parts]), whole.label)


@pytest.mark.filterwarnings(MORE_WORKERS_THAN_CPUS)
def test_repeated_clips_come_from_one_reading_and_each_video_once_an_epoch(data: DataConfig):
    data.repeats, data.batch_size = 2, 4
    loader = train(data)
    assert loader.steps_per_epoch == 5
    batches = list(loader.at(1))
    rows = [row for batch in batches for row in batch.video_id.tolist()]
    assert rows[::2] == rows[1::2] and sorted(rows[::2]) == [*range(10)]
    for batch in batches:
        assert not torch.equal(batch.video[0], batch.video[1])
    assert_equal(list(train(data).at(1, 3)), batches[3:])
    data.num_workers = 2
    assert_equal(list(train(data).at(1)), batches)
    data.num_workers, data.augment.mixup = 0, 0.8
    with pytest.raises(UsageError, match=r"data\.augment\.mixup .* has 1;"):
        train(data, world=2)
    (a, b, c, d) = next(train(data).at(1)).label
    assert set(a.nonzero().flatten().tolist()) >= {loader.index.labels[rows[0]]}
    torch.testing.assert_close(torch.stack([a + c, b + d]).sum(1), torch.full((2,), 2.0))


def test_balanced_sampling_makes_classes_equally_frequent(data: DataConfig, tmp_path: Path):
    for i in range(2, 5):
        (tmp_path / "train" / "walk" / f"{i}.mp4").unlink()
    data.balance, data.batch_size = 1.0, 3
    loader = train(data)
    assert loader.steps_per_epoch == 2
    for epoch in range(4):
        batches = list(loader.at(epoch))
        labels = torch.cat([batch.label for batch in batches])
        assert labels.bincount().tolist() == [3, 3]
        assert_equal(list(train(data).at(epoch, 1)), batches[1:])
    rows = torch.cat([batch.video_id for batch in batches]).tolist()
    walks = [video for row, video in zip(rows, videos_of(batches), strict=True) if row > 4]
    assert len({video.numpy().tobytes() for video in walks}) == 3  # 2 videos, 3 different clips


def videos_of(batches: list[ClipBatch]) -> list[Tensor]:
    return [video for batch in batches for video in batch.video]


def test_weights_of_videos_are_read_below_the_root(data: DataConfig, tmp_path: Path):
    lines = [f"train/{name}/{i}.mp4 0" for name in ("eat", "walk") for i in range(5)][:-1]
    (tmp_path / "weights.txt").write_text("\n".join(lines))
    data.video_weights = "weights.txt"
    for batch in train(data).at(0):
        assert batch.video_id.tolist() == [9, 9, 9, 9]
        assert len({video.numpy().tobytes() for video in batch.video}) > 1


def test_wrong_repeats_and_balances_are_named(data: DataConfig):
    data.repeats = 0
    with pytest.raises(UsageError, match=r"^data\.repeats=0 "):
        train(data)
    data.repeats = 3
    with pytest.raises(UsageError, match=r"data\.batch_size=4 .*3 clips of a video.* use 3 or 6"):
        train(data)
    data.repeats, data.balance = 1, 1.5
    with pytest.raises(UsageError, match=r"^data\.balance=1\.5 "):
        train(data)


def test_a_known_broken_file_is_not_opened_and_changes_no_batch(data: DataConfig, tmp_path: Path):
    bad = tmp_path / "train" / "eat" / "9.mp4"
    bad.write_bytes(b"")
    tried = [list(train(data).at(epoch)) for epoch in range(3)]
    causes = {failure for batches in tried for batch in batches for failure in batch.failures}
    ((path, cause),) = causes
    assert path == str(bad)
    loader = train(data)
    bad.unlink()  # a further attempt would have another cause
    for epoch, batches in enumerate(tried):
        assert_equal(list(loader.at(epoch, known={path: cause})), batches)


def test_an_odd_number_of_videos_is_not_mixed_in_pairs(data: DataConfig):
    strong(data)
    data.batch_size = 6
    with pytest.raises(UsageError, match=r"data\.augment\.mixup .* has 3; .*data\.batch_size"):
        train(data, accumulate=2)
    data.augment.mixup = data.augment.cutmix = 0.0
    train(data, accumulate=2)


def test_clips_of_a_target_rate_are_those_of_the_file_with_other_distances(data: DataConfig):
    plain = list(evaluation(data))
    data.target_fps = 30.0  # the rate of the files
    assert_equal(list(evaluation(data)), plain)
    data.target_fps, data.clip.frame_stride = 60.0, 4
    assert_equal(list(evaluation(data)), plain)
    data.target_fps = 15.0
    assert not torch.equal(next(iter(evaluation(data))).video, plain[0].video)
    data.target_fps = 0.0
    with pytest.raises(UsageError, match=r"^data\.target_fps=0\.0 "):
        train(data)
    data.target_fps, data.clip.sampler = 30.0, "segments"
    with pytest.raises(UsageError, match=r"^data\.target_fps=30\.0 .*segments"):
        train(data)


MISTAKES = {
    "data.augment.rand_augment": lambda cfg: setattr(cfg.augment, "rand_augment", -1),
    "data.augment.rand_strength": lambda cfg: setattr(cfg.augment, "rand_strength", 1.5),
    "data.augment.rand_operations": lambda cfg: setattr(cfg.augment, "rand_operations", "colour"),
    "data.augment.erasing": lambda cfg: setattr(cfg.augment, "erasing", 2.0),
    "data.augment.mixup": lambda cfg: setattr(cfg.augment, "mixup", -0.1),
    "data.augment.cutmix": lambda cfg: setattr(cfg.augment, "cutmix", float("nan")),
    "data.augment.mix_probability": lambda cfg: setattr(cfg.augment, "mix_probability", 1.1),
    "data.augment.time_jitter": lambda cfg: setattr(cfg.augment, "time_jitter", 1.0),
    "data.augment.time_reversal": lambda cfg: setattr(cfg.augment, "time_reversal", -0.1),
    "data.clip.sampler": lambda cfg: setattr(cfg.clip, "sampler", "slow"),
    "data.clip.short": lambda cfg: setattr(cfg.clip, "short", "clamp"),
    "data.clip.num_frames": lambda cfg: setattr(cfg.clip, "num_frames", 0),
    "data.clip.frame_stride": lambda cfg: setattr(cfg.clip, "frame_stride", 0),
    "data.clip.crop_size": lambda cfg: setattr(cfg.clip, "crop_size", 0),
    "data.augment.crop": lambda cfg: setattr(cfg.augment, "crop", "random"),
    "data.augment.short_side": lambda cfg: setattr(cfg.augment, "short_side", [15, 30]),
    "data.augment.color_jitter": lambda cfg: setattr(cfg.augment, "color_jitter", 1.5),
}


def test_the_speed_of_a_clip_over_the_whole_video_is_not_changed(data: DataConfig):
    data.clip.sampler, data.augment.time_jitter = "segments", 0.2
    with pytest.raises(UsageError, match=r"data\.augment\.time_jitter=0\.2 .*segments"):
        train(data)


@pytest.mark.parametrize("key", MISTAKES)
def test_a_wrong_setting_is_named(key: str, data: DataConfig):
    MISTAKES[key](data)
    with pytest.raises(UsageError, match=key.replace(".", r"\.")):
        train(data)


def test_wrong_areas_and_seeds_are_named(data: DataConfig):
    with pytest.raises(UsageError, match="seed=-1"):
        train(data, seed=-1)
    data.augment.crop, data.augment.area = "resized", [0.5, 1.5]
    with pytest.raises(UsageError, match=r"data\.augment\.area"):
        train(data)


@pytest.mark.parametrize(
    ("views", "word"),
    [
        (ViewsConfig(1, 2, 16, 16), "num_crops=2"),
        (ViewsConfig(0, 1, 16, 16), "num_clips=0"),
        (ViewsConfig(1, 1, 17, 16), "crop_size=17"),
        (ViewsConfig(1, 1, 16, 16, batch_size=0), "batch_size=0"),
        (ViewsConfig(1, 1, 16, 16, crops="corners"), "crops=corners"),
        (ViewsConfig(1, 3, 16, 16, crops="whole"), "num_crops=3"),
    ],
)
def test_wrong_views_are_named_in_full(views: ViewsConfig, word: str, data: DataConfig):
    with pytest.raises(UsageError, match=rf"^data\.test_views\.{word}"):
        evaluation(data, views=views)
    with pytest.raises(UsageError, match=rf"^data\.val_views\.{word}"):
        build_eval_loader(data, data.val, views, rank=0, world_size=1, key="data.val_views")


def test_a_negative_number_of_workers_is_refused(data: DataConfig):
    data.num_workers = -1
    with pytest.raises(UsageError, match=r"^data\.num_workers=-1 .*0 or more, or null"):
        evaluation(data)


@pytest.mark.parametrize(
    ("cpus", "ranks", "workers"), [(1, 1, 0), (2, 1, 2), (2, 2, 0), (16, 4, 4), (64, 2, 8)]
)
def test_the_number_of_workers_follows_the_number_of_cpus(
    cpus: int, ranks: int, workers: int, data: DataConfig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cpus)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    data.num_workers = None
    assert evaluation(data)._batches.num_workers == workers


def test_the_remedy_for_a_wrong_rule_of_short_videos_is_named(data: DataConfig):
    data.clip.sampler = "slowfast"
    with pytest.raises(UsageError, match=r"^data\.clip\.short=loop .*slowfast.*choose hold"):
        train(data)


def test_a_batch_larger_than_the_data_set_is_remarked(data: DataConfig):
    data.batch_size = 10
    assert train(data).remarks == ()
    data.batch_size = 11
    (line,) = train(data).remarks
    assert "data.batch_size=11" in line
    assert "10 videos" in line


def test_flips_are_remarked_if_class_names_mention_a_direction(data: DataConfig, tmp_path: Path):
    (tmp_path / "train" / "walk").rename(tmp_path / "train" / "swipe_left")
    (line,) = train(data).remarks
    assert "swipe_left" in line
    assert "eat" not in line
    assert "data.augment.flip=false" in line
    data.augment.flip = False
    assert train(data).remarks == ()


@pytest.mark.slow
def test_spawned_workers_give_the_same_batches(data: DataConfig):
    expected = list(train(data).at(0))
    data.num_workers = 1
    loader = train(data)
    loader._batches.multiprocessing_context = "spawn"
    assert_equal(list(loader.at(0)), expected)


def test_folders_of_frames_give_the_clips_of_their_videos(data: DataConfig, tmp_path: Path):
    """Bit for bit on every processor: PNG stores the decoded frames without loss."""
    videos = [list(train(data).at(0)), list(evaluation(data))]
    for path in sorted(tmp_path.rglob("*.mp4")):
        extract_frames(path, path.with_suffix(""))
        path.unlink()
    folders = [list(train(data).at(0)), list(evaluation(data))]
    for split in ("train", "val"):
        folders_of_split = sorted((tmp_path / split).glob("*/*"))
        lines = [
            f"{path.relative_to(tmp_path)} {len(os.listdir(path))} {path.parent.name}"
            for path in folders_of_split
        ]
        (tmp_path / f"{split}.txt").write_text("\n".join(lines))
    data.train, data.val, data.classes = "train.txt", "val.txt", None
    lists = [list(train(data).at(0)), list(evaluation(data))]
    for expected, *found in zip(videos, folders, lists, strict=True):
        for each in found:
            assert_equal(expected, each)
    # A folder with fewer frames than its list says is a failure, as a file that is cut short.
    (tmp_path / "val/eat/2/img_00022.png").unlink()
    with pytest.raises(UserError, match=r"val/eat/2: has 21 frames, but its list says 22; "):
        list(evaluation(data))
