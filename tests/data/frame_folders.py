"""Folders of frames of real videos, for the tests."""

from pathlib import Path

from nlnet.data.decoding.pyav import PyAVReader
from nlnet.data.image_encoding import encode_image


def extract_frames(video: Path, folder: Path, name: str = "img_{:05}.png") -> Path:
    """Write the frames of a video as images; PNG keeps every bit of them."""
    folder.mkdir(parents=True)
    kind = "png" if name.endswith("png") else "jpg"
    with PyAVReader(video) as reader:
        for i, pixels in enumerate(reader.frames(range(reader.num_frames)), 1):
            (folder / name.format(i)).write_bytes(encode_image(pixels, kind))
    return folder
