from collections.abc import Callable
from pathlib import Path

import pytest

from nlnet.data.decoding.probing import PROBES, probe_files


def spoil(path: Path, start: float, length: int = 200) -> Path:
    """Overwrite bytes from a share of the file on."""
    data = bytearray(path.read_bytes())
    first = int(start * len(data))
    data[first : first + length] = bytes(i * 37 % 256 for i in range(len(data[first:][:length])))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["open", "decode"])
def test_broken_files_are_named_in_their_order(
    name: str, video_file: Callable[..., Path], tmp_path: Path
):
    good = [video_file(f"{i}.mp4") for i in range(3)]
    empty, text, cut = tmp_path / "empty.mp4", tmp_path / "text.mp4", video_file("cut.mkv")
    empty.write_bytes(b"")
    text.write_text("no video")
    cut.write_bytes(cut.read_bytes()[:-500])
    paths = [good[0], empty, good[1], text, cut, good[2], empty, tmp_path / "gone.mp4"]
    failures = probe_files(paths, PROBES[name])
    names = [Path(failure.path).name for failure in failures]
    assert names == ["empty.mp4", "text.mp4", "cut.mkv", "gone.mp4"]
    assert all(failure.cause for failure in failures)


def test_only_decoding_finds_damage_inside_a_file(video_file: Callable[..., Path]):
    good, bad = video_file("good.mp4"), spoil(video_file("bad.mp4", options={"qp": "1"}), 0.4)
    assert probe_files([good, bad], PROBES["open"]) == []
    (failure,) = probe_files([good, bad], PROBES["decode"])
    assert failure.path == str(bad)
