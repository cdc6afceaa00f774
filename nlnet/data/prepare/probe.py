"""Measure one video file: whether and how far it decodes, its size, rate, key frames and digest."""

import math
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import av
import numpy as np

from nlnet.data.decoding.container import open_video_stream, read_packets
from nlnet.data.decoding.entries import EntryRecorder
from nlnet.data.decoding.frame_index import is_indexed, make_frame_index
from nlnet.data.decoding.known import is_unchanged
from nlnet.data.decoding.reader import DecodeError
from nlnet.data.decoding.truncation import DeclaredFrames, missing_bytes
from nlnet.data.index.manifest import OK, VideoFacts, file_digest
from nlnet.data.prepare.probe_frames import FRAMES, folder_state, probe_frames
from nlnet.data.prepare.status import CUT_SHORT, DAMAGED, UNREADABLE

# How a file is read: packets (all packets, and the first frame), or full (all frames).
LEVELS = ("packets", "full")


@dataclass
class _Packets:
    """The packets of the video stream."""

    times: list[int] = field(default_factory=list)  # when each is shown
    keys: list[int] = field(default_factory=list)  # those from which decoding can start
    has_all_times: bool = True
    damage: str = ""


def probe_video(path: Path, verify: str = "packets", seconds: float = math.inf) -> VideoFacts:
    """The facts of a video; `verify` is one of LEVELS. It never raises: see status and cause.

    A folder is read as a folder of frames.

    In containers and codecs with a reliable index, the packets are the frames. In all others, and
    in files that are damaged, every frame is decoded and counted, and entries are tried as long as
    `seconds` have not passed since the start.
    """
    deadline = time.monotonic() + seconds
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return probe_frames(path, verify)
        if not stat.S_ISREG(status.st_mode):
            return VideoFacts(UNREADABLE, "it is not a regular file")
        known = VideoFacts(size=status.st_size, modified=status.st_mtime_ns, verified=verify)
        if not status.st_size:
            return replace(known, status=UNREADABLE, cause="the file is empty")
        known = replace(known, sha256=file_digest(path))
        with path.open("rb") as file:
            missing = missing_bytes(file)
    except OSError as error:
        return VideoFacts(UNREADABLE, error.strerror or "the system cannot read it")
    facts = _measure(path, known, "full" if missing else verify, deadline)
    if missing:
        size = f"{missing:,} bytes are missing at its end"
        cause = f"{size}; {facts.cause}" if facts.cause else size
        status_name = CUT_SHORT if facts.num_frames else UNREADABLE
        return replace(facts, status=status_name, cause=cause)
    return facts


def _measure(path: Path, known: VideoFacts, verify: str, deadline: float) -> VideoFacts:
    """The facts from the packets and the frames of a file."""
    try:
        packets, facts = _read_packets(path, known)
        are_frames = (
            is_indexed(facts.container, facts.codec)
            and packets.has_all_times
            and not packets.damage
            and make_frame_index(packets.times, packets.keys) is not None
        )
        entries = None if are_frames else EntryRecorder()
        if are_frames and verify == "packets":
            facts = replace(_decode(path, facts, limit=1), num_frames=len(packets.times))
        else:
            facts = _decode(path, facts, limit=None, entries=entries)
        if entries is not None and facts.status == OK and not packets.damage:
            frames, times = entries.verified(path, deadline - time.monotonic())
            facts = replace(facts, entry_frames=frames, entry_times=times)
    except DecodeError as error:
        return replace(known, status=UNREADABLE, cause=error.cause)
    order = {shown: number for number, shown in enumerate(sorted(set(packets.times)))}
    keys = sorted(set(packets.keys)) if packets.has_all_times else []
    seconds = facts.duration or (facts.num_frames / facts.rate if facts.rate else 0.0)
    facts = replace(
        facts,
        duration=seconds,
        rate=facts.num_frames / seconds if seconds else facts.rate,
        key_frames=tuple(order[shown] for shown in keys),
        key_times=tuple(keys),
    )
    if packets.damage and facts.status == OK:
        return replace(facts, status=DAMAGED, cause=packets.damage)
    return facts


def _read_packets(path: Path, known: VideoFacts) -> tuple[_Packets, VideoFacts]:
    """Read all packets without decoding."""
    container, stream = open_video_stream(path, path)
    with container:
        packets, end = _Packets(), -math.inf
        try:
            for packet in read_packets(container, stream):
                if packet.size == 0 or packet.is_discard:
                    continue
                if packet.is_corrupt:
                    packets.damage = f"packet {len(packets.times)} is damaged"
                if packet.pts is None:
                    packets.has_all_times = False
                    continue
                packets.times.append(packet.pts)
                end = max(end, packet.pts + (packet.duration or 0))
                if packet.is_keyframe:
                    packets.keys.append(packet.pts)
        except av.FFmpegError as error:
            packets.damage = f"{error.strerror} after {len(packets.times)} packets"
        seconds = 0.0
        if packets.times and stream.time_base is not None:
            seconds = float((end - min(packets.times)) * stream.time_base)
        rate = stream.average_rate or stream.guessed_rate
        return packets, replace(
            known,
            codec=str(stream.codec_context.codec.canonical_name),
            container=container.format.name,
            duration=max(seconds, 0.0),
            rate=float(rate or 0),
        )


def _decode(
    path: Path, facts: VideoFacts, limit: int | None, entries: EntryRecorder | None = None
) -> VideoFacts:
    """Decode the first `limit` frames, or all; the size is that of the first frame."""
    container, stream = open_video_stream(path, path)
    with container:
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        count, expected = 0, DeclaredFrames(container, stream)

        def frames() -> Iterator[av.VideoFrame]:
            for packet in read_packets(container, stream):
                expected.add(packet)
                if entries is not None:
                    entries.packet(packet)
                yield from packet.decode()

        try:
            for frame in frames():
                if entries is not None:
                    entries.frame(frame)
                if count == 0:
                    facts = _shown(frame, facts)
                if frame.is_corrupt and facts.status == OK:
                    facts = replace(facts, status=DAMAGED, cause=f"frame {count} is damaged")
                count += 1
                if count == limit:
                    return replace(facts, num_frames=count)
            if count and (cause := expected.lost(count)) and facts.status == OK:
                facts = replace(facts, status=DAMAGED, cause=cause)
        except av.FFmpegError as error:
            if count == 0:
                raise DecodeError(path, error.strerror or "no frame can be decoded") from error
            cause = f"{error.strerror} after {count} frames"
            facts = replace(facts, status=DAMAGED, cause=cause)
    if count == 0:
        raise DecodeError(path, "no frame can be decoded")
    return replace(facts, num_frames=count)


def _shown(frame: av.VideoFrame, facts: VideoFacts) -> VideoFacts:
    """The size, rotation and mirroring of a frame as it is shown."""
    rotation, mirrored = round(frame.rotation / 90) * 90 % 360, False
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is not None:
        matrix = np.frombuffer(bytes(data)[:36], np.int32).reshape(3, 3)[:2, :2].astype(np.float64)
        mirrored = bool(np.linalg.det(matrix) < 0)
    width, height = frame.width, frame.height
    if rotation % 180:
        width, height = height, width
    return replace(facts, width=width, height=height, rotation=rotation, mirrored=mirrored)


def same_file(path: Path, facts: VideoFacts) -> bool:
    """Whether a file has not changed since its facts were measured, by its size and time."""
    try:
        if facts.container == FRAMES:
            return folder_state(path) == (facts.size, facts.modified)
    except (OSError, DecodeError):
        return False
    return is_unchanged(path, facts.size, facts.modified)
