import numpy as np
import pytest
import torch

from nlnet.data.transforms import (
    CROPS,
    EvalTransform,
    JitterCrop,
    ResizedCrop,
    TrainTransform,
    WholeFrame,
)

TRAIN_CROPS = {"jitter": JitterCrop(32, 40, 64), "resized": ResizedCrop(0.35, 1.0)}


def gradient(height: int, width: int, num_frames: int = 3) -> np.ndarray:
    """Red is the row, green the column, blue the frame, so that a pixel tells its position."""
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    frames[..., 0] = np.arange(height)[:, None]
    frames[..., 1] = np.arange(width)
    frames[..., 2] = 10 * np.arange(num_frames)[:, None, None]
    return frames


def views(transform, frames: np.ndarray, seed: int = 0) -> list[torch.Tensor]:
    return transform(frames, np.random.default_rng(seed))


@pytest.mark.parametrize("crop", TRAIN_CROPS)
@pytest.mark.parametrize("shape", [(48, 64), (64, 48), (200, 30), (7, 5)])
def test_a_training_view_is_a_square_of_uint8(crop: str, shape: tuple[int, int]):
    transform = TrainTransform(TRAIN_CROPS[crop], 32, flip=True, color_jitter=0.3)
    for seed in range(20):
        (view,) = views(transform, gradient(*shape), seed)
        assert view.shape == (3, 3, 32, 32)
        assert view.dtype == torch.uint8
        assert view.is_contiguous()


@pytest.mark.parametrize("crop", TRAIN_CROPS)
def test_all_randomness_comes_from_the_generator(crop: str):
    transform = TrainTransform(TRAIN_CROPS[crop], 32, flip=True, color_jitter=0.5)
    frames = gradient(60, 80)
    torch.manual_seed(0)
    (first,) = views(transform, frames, 5)
    torch.manual_seed(1)
    (second,) = views(transform, frames, 5)
    assert torch.equal(first, second)
    assert len({views(transform, frames, seed)[0].numpy().tobytes() for seed in range(20)}) > 15


@pytest.mark.parametrize("crop", TRAIN_CROPS)
def test_all_frames_have_the_same_augmentation(crop: str):
    transform = TrainTransform(TRAIN_CROPS[crop], 32, flip=True, color_jitter=0.5)
    still = np.repeat(gradient(60, 80, num_frames=1), 5, axis=0)
    for seed in range(10):
        (view,) = views(transform, still, seed)
        assert torch.equal(view, view[:, :1].expand_as(view))


def test_flip_mirrors_half_of_the_views():
    frames = gradient(40, 40)
    plain = TrainTransform(JitterCrop(40, 40, 40), 40, flip=False, color_jitter=0.0)
    (unflipped,) = views(plain, frames)
    assert torch.equal(unflipped.permute(1, 2, 3, 0), torch.from_numpy(frames))
    flipping = TrainTransform(JitterCrop(40, 40, 40), 40, flip=True, color_jitter=0.0)
    flipped = 0
    for seed in range(400):
        (view,) = views(flipping, frames, seed)
        is_flipped = torch.equal(view, unflipped.flip(-1))
        assert is_flipped or torch.equal(view, unflipped)
        flipped += is_flipped
    assert 160 < flipped < 240


def test_the_jitter_window_has_the_size_that_its_short_side_gives():
    crop = JitterCrop(224, 256, 320)
    rng = np.random.default_rng(0)
    windows = [crop(480, 640, rng) for _ in range(2000)]
    sides = np.array([window.height for window in windows])
    assert all(window.height == window.width for window in windows)
    assert sides.min() == round(224 * 480 / 320)
    assert sides.max() == round(224 * 480 / 256)
    assert min(w.top for w in windows) == min(w.left for w in windows) == 0
    assert max(w.top + w.height for w in windows) == 480
    assert max(w.left + w.width for w in windows) == 640


def test_the_resized_window_keeps_area_and_aspect_within_their_limits():
    crop = ResizedCrop(0.35, 1.0)
    rng = np.random.default_rng(0)
    for _ in range(500):
        top, left, height, width = crop(480, 640, rng)
        assert 0.34 <= height * width / (480 * 640) <= 1
        assert 0.74 <= width / height <= 1.35
        assert 0 <= top <= 480 - height
        assert 0 <= left <= 640 - width
    assert crop(10, 1000, np.random.default_rng(0)) == (0, 495, 10, 10)  # no window fits


def centers(view: torch.Tensor) -> tuple[float, float]:
    """Mean source row and column of a view of `gradient`."""
    return view[0].float().mean().item(), view[1].float().mean().item()


@pytest.mark.parametrize("num_crops", [1, 3])
def test_crops_are_along_the_longer_side(num_crops: int):
    transform = EvalTransform(32, 32, num_crops)
    wide = [centers(view) for view in views(transform, gradient(64, 128))]
    tall = [centers(view) for view in views(transform, gradient(128, 64))]
    places = [63.5] if num_crops == 1 else [31.5, 63.5, 95.5]
    assert wide == [pytest.approx((31.5, place), abs=0.6) for place in places]
    assert tall == [pytest.approx((place, 31.5), abs=0.6) for place in places]


def test_a_test_crop_with_the_size_of_the_source_is_the_source():
    frames = gradient(48, 80)
    left, center, right = views(EvalTransform(48, 48, 3), frames)
    for view, start in ((left, 0), (center, 16), (right, 32)):
        expected = torch.from_numpy(frames[:, :, start : start + 48])
        assert torch.equal(view.permute(1, 2, 3, 0), expected)


def test_a_test_crop_shows_its_share_of_the_short_side():
    """A 224 crop of a frame with short side 256 shows 7/8 of it."""
    (view,) = views(EvalTransform(56, 64, 1), gradient(128, 128))
    rows = view[0, 0, :, 0].float()
    assert rows[0].item() == pytest.approx(8.5, abs=1)
    assert rows[-1].item() == pytest.approx(118.5, abs=1)


def test_resizing_is_antialiased():
    """A fine checkerboard becomes gray, not black or white."""
    board = np.indices((64, 64)).sum(0) % 2 * 255
    frames = np.repeat(board[None, :, :, None], 3, axis=3).astype(np.uint8)
    (view,) = views(EvalTransform(16, 16, 1), frames)
    assert (view.float() - 127.5).abs().max() < 16


def test_color_jitter_changes_colors_within_its_strength():
    gray = np.full((2, 32, 32, 3), 100, np.uint8)
    for seed in range(50):
        (view,) = views(TrainTransform(JitterCrop(32, 32, 32), 32, False, 0.2), gray, seed)
        assert view.unique().numel() == 1
        assert 79 <= view.max().item() <= 121


@pytest.mark.parametrize(
    ("crops", "expected"),  # columns of a 256-crop's left edge in 341: the published offsets
    [("spread", [0, 42, 85]), ("stepped", [0, 42, 84]), ("ceiled", [0, 43, 85])],
)
def test_three_crops_are_where_the_code_bases_put_them(crops: str, expected: list[int]):
    columns = np.broadcast_to(np.arange(341, dtype=np.uint16)[None, :], (256, 341))
    frames = np.stack([columns % 256, columns // 256, np.zeros_like(columns)], axis=2)[None]
    transform = EvalTransform(256, 256, 3, CROPS[crops])
    found = []
    for view in views(transform, frames.astype(np.uint8)):
        low, high, _ = view[:, 0, 0, 0].tolist()
        found.append(low + 256 * high)
    assert found == expected
    single = views(EvalTransform(256, 256, 1, CROPS[crops]), frames.astype(np.uint8))[0]
    assert single[0, 0, 0, 0] == expected[1]


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(240, 320, (48, 64)), (320, 240, (64, 48)), (48, 85, (48, 85)), (30, 50, (48, 80))],
)
def test_a_whole_frame_keeps_its_form(height: int, width: int, size: tuple[int, int]):
    """The picture is a slope in both directions: resizing keeps its ends and its middle."""
    slope = np.linspace(0, 200, height)[:, None, None] + np.linspace(0, 50, width)[:, None]
    frames = np.broadcast_to(slope, (2, height, width, 3)).astype(np.uint8)
    (view,) = views(WholeFrame(48), frames)
    assert view.shape == (3, 2, *size)
    corners = view[0, 0][[0, 0, -1, -1], [0, -1, 0, -1]].tolist()
    assert corners == pytest.approx([0, 50, 200, 250], abs=5)
