"""Mixup and CutMix: shares, labels, determinism."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from nlnet.clip import Clip, Failure, Sample
from nlnet.data.augmentation.mixing import MixedPairs, Mixing

MIXINGS = {
    "mixup": Mixing(0.8, 0.0, 1.0),
    "cutmix": Mixing(0.0, 1.0, 1.0),
    "both": Mixing(0.8, 1.0, 1.0),
    "sometimes": Mixing(0.8, 1.0, 0.5),
    "never": Mixing(0.8, 1.0, 0.0),
}
NUM_CLASSES = 5
SEVERAL = torch.tensor([[1.0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 0], [0, 1, 0, 0, 0]])


def video(row: int) -> Tensor:
    generator = torch.Generator().manual_seed(row)
    return torch.randint(0, 256, (3, 2, 16, 12), dtype=torch.uint8, generator=generator)


class Videos(Dataset[Sample]):
    """One or more clips of random pixels for each key (epoch, row); bad rows have none."""

    def __init__(self, several: bool = False, clips: int = 1, bad: frozenset[int] = frozenset()):
        self.several, self.clips, self.bad = several, clips, bad

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        row = key[1]
        if row in self.bad:
            return Sample((), (Failure("bad.mp4", "broken"),))
        label = SEVERAL[row % 4] if self.several else torch.tensor(row % NUM_CLASSES)
        clips = tuple(Clip(video(10 * row + i), label, row) for i in range(self.clips))
        return Sample(clips, ())


def mixed(name: str, keys: list[tuple[int, int]], seed: int = 0, **options) -> list[Sample]:
    dataset = MixedPairs(Videos(**options), MIXINGS[name], num_classes=NUM_CLASSES, seed=seed)
    return dataset.__getitems__(keys)


@pytest.mark.parametrize("name", MIXINGS)
def test_soft_labels_sum_to_one_and_both_clips_share_alike(name: str):
    for epoch in range(20):
        (a,), (b,) = (s.clips for s in mixed(name, [(epoch, 1), (epoch, 3)]))
        for clip in (a, b):
            assert clip.label.shape == (NUM_CLASSES,) and clip.label.dtype == torch.float32
            assert float(clip.label.sum()) == pytest.approx(1, abs=1e-6)
            assert clip.video.dtype == torch.uint8 and clip.video.shape == (3, 2, 16, 12)
        assert float(a.label[1]) == pytest.approx(float(b.label[3]), abs=1e-6)
        assert (a.video_id, b.video_id) == (1, 3)


def test_mixup_is_a_weighted_mean_of_videos_and_labels():
    shares = []
    for epoch in range(50):
        (a,), (b,) = (s.clips for s in mixed("mixup", [(epoch, 1), (epoch, 3)]))
        share = float(a.label[1])
        shares.append(share)
        first, second = video(10).double().numpy(), video(30).double().numpy()
        for clip, own, other in ((a, first, second), (b, second, first)):
            expected = share * own + (1 - share) * other
            assert np.abs(clip.video.double().numpy() - expected).max() <= 0.51
    assert min(shares) < 0.1 and max(shares) > 0.9 and 0.35 < np.mean(shares) < 0.65


def test_cutmix_pastes_a_rectangle_whose_area_is_the_share_of_the_label():
    for epoch in range(50):
        (a,), (b,) = (s.clips for s in mixed("cutmix", [(epoch, 1), (epoch, 3)]))
        is_other = (a.video == video(30)).all(0).all(0) & (b.video == video(10)).all(0).all(0)
        rows, columns = is_other.any(1), is_other.any(0)
        assert torch.equal(is_other, rows[:, None] & columns)  # one rectangle, in all frames
        assert torch.equal(torch.where(is_other, video(30), video(10)), a.video)
        assert torch.equal(torch.where(is_other, video(10), video(30)), b.video)
        kept = 1 - float(is_other.float().mean())
        assert float(a.label[1]) == pytest.approx(kept, abs=1e-6)


@pytest.mark.parametrize("name", MIXINGS)
def test_mixing_is_a_function_of_the_seed_and_the_keys_of_the_pair(name: str):
    keys = [(2, 0), (2, 3), (2, 1), (2, 4)]
    whole = mixed(name, keys)
    torch.manual_seed(5)
    halves = [*mixed(name, keys[:2]), *mixed(name, keys[2:])]
    for x, y in zip(whole, halves, strict=True):
        assert torch.equal(x.clips[0].video, y.clips[0].video)
        assert torch.equal(x.clips[0].label, y.clips[0].label)
    others = [mixed(name, keys, seed=1), mixed(name, [(3, row) for _, row in keys])]
    for other in others if name in ("mixup", "cutmix", "both") else []:
        pairs = zip(whole, other, strict=True)
        assert not all(torch.equal(x.clips[0].video, y.clips[0].video) for x, y in pairs)


def test_a_probability_of_0_leaves_the_clips():
    for epoch in range(5):
        for row, sample in zip((1, 3), mixed("never", [(epoch, 1), (epoch, 3)]), strict=True):
            assert torch.equal(sample.clips[0].video, video(10 * row))
            assert sample.clips[0].label.tolist() == [float(i == row) for i in range(NUM_CLASSES)]


def test_the_probability_is_the_share_of_mixed_pairs():
    count = sum(
        not torch.equal(mixed("sometimes", [(epoch, 1), (epoch, 3)])[0].clips[0].video, video(10))
        for epoch in range(200)
    )
    assert 75 < count < 125


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_several_labels_are_mixed_by_the_same_share(name: str):
    (a,), (b,) = (s.clips for s in mixed(name, [(0, 0), (0, 1)], several=True))
    share = float(a.label[0])
    assert 0 < share < 1
    for label, own, other in ((a.label, 0, 1), (b.label, 1, 0)):
        expected = share * SEVERAL[own] + (1 - share) * SEVERAL[other]
        torch.testing.assert_close(label, expected)


def test_repeated_clips_are_mixed_one_by_one():
    first, second = mixed("both", [(0, 1), (0, 3)], clips=3)
    assert len(first.clips) == len(second.clips) == 3
    assert len({float(clip.label[1]) for clip in first.clips}) == 3
    for a, b in zip(first.clips, second.clips, strict=True):
        assert float(a.label[1]) == pytest.approx(float(b.label[3]), abs=1e-6)


def test_an_unreadable_video_leaves_its_partner_as_it_is():
    first, second = mixed("both", [(0, 1), (0, 3)], bad=frozenset({3}))
    assert torch.equal(first.clips[0].video, video(10))
    assert second.clips == () and second.failures
    (alone,) = mixed("both", [(0, 1)])  # the last of an odd number
    assert torch.equal(alone.clips[0].video, video(10))
