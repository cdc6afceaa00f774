"""The formats of uploads: those that FFmpeg writes are recognized, lists and texts are not."""

from pathlib import Path

import pytest

from nlnet.serve.formats import HEAD, container_format
from tests.conftest import write_gray_video

CODECS = {
    "mp4": ("mov", "libx264"),
    "mov": ("mov", "mpeg4"),
    "3gp": ("mov", "mpeg4"),
    "mkv": ("matroska", "libx264"),
    "webm": ("matroska", "libvpx"),
    "avi": ("avi", "mpeg4"),
    "flv": ("flv", "flv"),
    "gif": ("gif", "gif"),
    "wmv": ("asf", "wmv2"),
    "ogv": ("ogg", "libvpx"),
    "mpg": ("mpeg", "mpeg1video"),
    "ts": ("mpegts", "mpeg2video"),
}


@pytest.mark.parametrize("suffix", CODECS)
def test_a_file_of_each_format_is_recognized(suffix: str, tmp_path: Path):
    wanted, codec = CODECS[suffix]
    path = tmp_path / f"video.{suffix}"
    if codec == "gif":
        path.write_bytes(b"GIF89a" + bytes(HEAD))  # write_gray_video writes YUV, which GIF has not
    else:
        write_gray_video(path, num_frames=4, codec=codec, b_frames=0)
    assert container_format(path.read_bytes()[:HEAD]) == wanted


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x47",
        b"some text, not a video",
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",  # FFmpeg would open what it lists
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b'<?xml version="1.0"?><MPD profiles="urn:mpeg:dash:profile:isoff-on-demand:2011">',
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n",
        b"PK\x03\x04" + bytes(HEAD),
        b"\x89PNG\r\n\x1a\n" + bytes(HEAD),
        b"RIFF\x00\x00\x00\x00WAVE" + bytes(HEAD),
        b"\x7fELF" + bytes(HEAD),
    ],
)
def test_other_content_is_no_video(head: bytes):
    assert container_format(head) is None
