"""The forms in which nlnet reads the videos: as they are, copies, and copies in shards."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from nlnet.bench.reading.videos import RATE
from nlnet.data.decoding.opening import open_video
from nlnet.data.encoding import VideoWriter
from nlnet.data.index.manifest import ManifestHeader, ManifestRow, write_manifest
from nlnet.data.index.read import read_index
from nlnet.data.index.video_index import VideoIndex
from nlnet.data.prepare.probe import probe_video
from nlnet.data.shards.folder import SHARD_MANIFEST, write_shard_folder

COPY_GOP = 16  # frames from one key frame to the next, as `prepare --gop` has it by default
SHARD_BYTES = 10**9

Files = Mapping[str, VideoIndex]  # by form; the same videos in the same order


def prepare_files(originals: Sequence[Path], folder: Path) -> Files:
    """Index the originals, copies as `prepare --resize 256 --gop 16` makes them, and shards.

    The copies are in `folder`. Raises UserError if the extra `parquet` is not installed.
    """
    labels = [int(path.parent.name[-1]) for path in originals]
    classes = tuple(sorted({path.parent.name for path in originals}))
    rows = []
    for path, label in zip(originals, labels, strict=True):
        copy = folder / path.parent.name / path.name
        _copy(path, copy)
        facts = probe_video(copy)
        name = copy.relative_to(folder).as_posix()
        end = facts.num_frames
        rows.append(ManifestRow(name, "train", name, name, (label,), 0, end, facts=facts))
    header = ManifestHeader(classes, multi_label=False)
    write_manifest(folder / SHARD_MANIFEST, header, rows)
    shards = folder / "shards"
    write_shard_folder(shards, header, rows, folder, SHARD_BYTES)
    return {
        "original": VideoIndex(originals, labels, classes),
        "prepared": read_index(folder, SHARD_MANIFEST),
        "shards": read_index(shards, SHARD_MANIFEST),
    }


def _copy(path: Path, copy: Path) -> None:
    """Encode a video again. The generated videos have a short side of 256 pixels already."""
    with open_video(path) as video, VideoWriter(copy, RATE, gop=COPY_GOP) as writer:
        for i, frame in enumerate(video.frames(range(video.num_frames))):
            writer.write(frame, i / RATE)
