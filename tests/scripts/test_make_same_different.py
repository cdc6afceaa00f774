import importlib.util
import json
import subprocess
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from nlnet.data.decoding.pyav import PyAVReader
from nlnet.data.index.read import read_index

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_same_different.py"
FEW = ("--train", "12", "--val", "4", "--test", "2", "--workers", "2")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_same_different", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    return module


def run(out: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPT), "--out", str(out), *FEW, *options]
    return subprocess.run(command, capture_output=True, text=True)


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.mp4"))
    }


@pytest.mark.parametrize("subtle", [False, True])
def test_one_object_alone_does_not_tell_the_class(script: ModuleType, subtle: bool):
    """First and second objects are uniform in both classes; 0.01 is more than 4 sigma."""
    scene = script.Scene(subtle=subtle)
    n = 12_000
    for same in (False, True):
        rng = np.random.default_rng(int(same))
        pairs = [script.choose_things(rng, same, scene) for _ in range(n)]
        for which in (0, 1):
            counts = Counter(pair[which] for pair in pairs)
            assert len(counts) == 16
            shares = np.array(list(counts.values())) / n
            assert np.abs(shares - 1 / 16).max() < 0.01


@pytest.mark.parametrize(
    ("subtle", "kinds"),
    [
        (False, {"color", "both"}),
        (True, {"color", "both", "shape"}),
    ],
)
def test_different_objects_differ_in_each_way_equally_often(
    script: ModuleType, subtle: bool, kinds: set[str]
):
    """0.03 is more than 4 sigma."""
    rng = np.random.default_rng(0)
    n = 6000
    scene = script.Scene(subtle=subtle)
    names = {(False, True): "color", (True, False): "shape", (True, True): "both"}
    counts: Counter = Counter()
    for _ in range(n):
        first, second = script.choose_things(rng, False, scene)
        counts[names[first.shape != second.shape, first.color != second.color]] += 1
    assert set(counts) == kinds
    assert all(abs(count / n - 1 / len(kinds)) < 0.03 for count in counts.values())


@pytest.mark.parametrize("size", [48, 64])
@pytest.mark.parametrize("num_frames", [4, 8, 16, 33])
def test_objects_appear_one_after_the_other_at_two_places(
    size: int, num_frames: int, script: ModuleType
):
    scene = script.Scene(size=size, frames=num_frames)
    rng = np.random.default_rng(0)
    for _ in range(200):
        first, second = script.choose_times(rng, num_frames)
        assert first.start == 0
        assert second.stop == num_frames
        assert len(first) >= 1
        assert len(second) >= 1
        assert second.start - first.stop >= num_frames // 4
        places = script.choose_places(rng, scene)
        assert places.min() >= scene.object_size / 2
        assert places.max() <= size - scene.object_size / 2
        assert np.abs(places[0] - places[1]).max() > scene.object_size


def num_colored_pixels(frames: np.ndarray) -> np.ndarray:
    """The number of pixels of each frame that are not gray."""
    saturation = frames.max(-1).astype(int) - frames.min(-1)
    return (saturation > 90).sum((1, 2))


def test_a_clip_shows_two_objects_and_none_between_them(script: ModuleType):
    scene = script.Scene(noise=4)
    for seed in range(20):
        clip = script.draw_clip(np.random.default_rng(seed), bool(seed % 2), scene)
        assert clip.shape == (8, 64, 64, 3)
        assert clip.dtype == np.uint8
        pixels = num_colored_pixels(clip)
        assert pixels[[0, 1, 6, 7]].min() > 0.3 * scene.object_size**2
        assert pixels[3:5].max() == 0


def test_objects_that_are_not_shown_are_missing_and_nothing_else_changes(script: ModuleType):
    scene = script.Scene(noise=4)
    for seed in range(6):
        clips = {
            shown: script.draw_clip(np.random.default_rng(seed), True, scene, shown)
            for shown in (script.BOTH, *script.INCOMPLETE)
        }
        assert num_colored_pixels(clips[False, False]).max() == 0
        assert (clips[True, False][:4] == clips[script.BOTH][:4]).all()
        assert (clips[True, False][4:] == clips[False, False][4:]).all()
        assert (clips[False, True][:4] == clips[False, False][:4]).all()
        assert (clips[False, True][4:] == clips[script.BOTH][4:]).all()


def test_each_incomplete_video_is_in_both_classes_and_changes_no_other_video(tmp_path: Path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert run(one).returncode == 0
    assert "24 videos, 24 of them new" in run(two, "--incomplete", "6").stdout
    found = digests(two)
    assert digests(one).items() < found.items()
    shown = []
    for number in range(3):
        different, same = (
            f"train/{name}/incomplete_{number:06d}.mp4" for name in ("different", "same")
        )
        assert found[different] == found[same]
        with PyAVReader(two / same) as video:
            pixels = num_colored_pixels(video.read(range(8)))
        shown.append((bool(pixels[0]), bool(pixels[7])))
    assert shown == [(False, False), (True, False), (False, True)]
    assert "other settings" in run(two).stderr


def test_compression_keeps_the_objects(script: ModuleType, tmp_path: Path):
    scene = script.Scene()
    for seed in range(4):
        clip = script.draw_clip(np.random.default_rng(seed), bool(seed % 2), scene)
        path = tmp_path / "clip.mp4"
        script.write_video(path, clip, crf=20)
        with PyAVReader(path) as video:
            assert video.num_frames == 8
            decoded = video.read(range(8))
        for t in (0, 7):
            mask = clip[t].max(-1).astype(int) - clip[t].min(-1) > 90
            error = decoded[t][mask].mean(0) - clip[t][mask].mean(0)
            assert np.abs(error).max() < 25


def test_folders_are_balanced_deterministic_and_resumable(tmp_path: Path):
    """Equal bytes on every processor: x264 encodes with cpu-independent=1."""
    one, two = tmp_path / "one", tmp_path / "two"
    made = run(one)
    assert made.returncode == 0, made.stderr
    assert "18 videos, 18 of them new" in made.stdout
    for split, count in (("train", 12), ("val", 4), ("test", 2)):
        index = read_index(one, split)
        assert index.class_names == ("different", "same")
        assert np.bincount(index.labels).tolist() == [count // 2, count // 2]
    assert len(set(digests(one).values())) == 18

    run(two, "--workers", "1")
    assert digests(two) == digests(one)
    (two / "train" / "same" / "000003.mp4").unlink()
    assert "18 videos, 1 of them new" in run(two).stdout
    assert digests(two) == digests(one)
    assert "0 of them new" in run(two).stdout

    assert run(tmp_path / "three", "--seed", "1").returncode == 0
    assert not set(digests(tmp_path / "three").values()) & set(digests(one).values())


def test_other_folders_and_wrong_numbers_are_refused_in_one_line(tmp_path: Path):
    out = tmp_path / "data"
    assert run(out).returncode == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    for folder, options, words in (
        (out, ("--noise", "3"), "other settings"),
        (tmp_path / "mine", (), "not made by this program"),
        (tmp_path / "x", ("--size", "40"), "--size 40"),
        (tmp_path / "x", ("--frames", "3"), "--frames 3"),
        (tmp_path / "x", ("--shapes", "5"), "--shapes 5"),
        (tmp_path / "x", ("--colors", "7"), "--colors 7"),
        (tmp_path / "x", ("--val", "7"), "--val 7"),
        (tmp_path / "x", ("--incomplete", "3"), "--incomplete 3"),
    ):
        result = run(folder, *options)
        assert result.returncode == 1
        assert words in result.stderr
        assert result.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_a_folder_with_the_former_spelling_of_its_settings_is_accepted(tmp_path: Path):
    assert run(tmp_path / "data").returncode == 0
    path = tmp_path / "data" / "settings.json"
    settings = json.loads(path.read_text())
    settings["colours"] = settings.pop("colors")
    del settings["incomplete"]  # a later setting
    path.write_text(json.dumps(settings))
    assert "0 of them new" in run(tmp_path / "data").stdout
    assert "other settings" in run(tmp_path / "data", "--colors", "3").stderr
