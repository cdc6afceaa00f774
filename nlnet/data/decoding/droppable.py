"""Packets that can be left out: their frames are shown, but no other frame depends on them.

The stream says so in the first bytes of each unit (NAL unit) of a packet: `nal_ref_idc` of ITU-T
H.264, section 7.4.1, and the unit types of H.265, table 7-1. In H.265 a frame with such a type can
still be a reference of a higher temporal layer, so streams with several layers are left alone.
The unit types also say which packets have a frame at all: some have only metadata.
"""

from collections.abc import Callable, Iterator

IsDroppable = Callable[[memoryview], bool]  # the data of a packet -> whether it can be left out
MIN_BYTES = 20  # of a packet that certainly gives a frame, in codecs without a rule


def _units(packet: memoryview, length_size: int) -> Iterator[int]:
    """The first byte of each unit; its length stands before it."""
    start = length_size
    while start < len(packet):
        yield packet[start]
        start += int.from_bytes(packet[start - length_size : start], "big") + length_size


def _h264(config: bytes) -> IsDroppable | None:
    if len(config) < 7 or config[0] != 1:
        return None
    length_size = (config[4] & 3) + 1

    def is_droppable(packet: memoryview) -> bool:
        for header in _units(packet, length_size):
            match header & 31:
                case 1 | 2 | 3 | 4 | 5:  # a slice; all slices of a picture agree
                    return not header & 0x60
                case 7 | 8:  # parameters of the frames that follow
                    return False
        return False

    return is_droppable


def _hevc(config: bytes) -> IsDroppable | None:
    if len(config) < 23 or config[0] != 1 or config[21] >> 3 & 7 != 1:  # one temporal layer
        return None
    length_size = (config[21] & 3) + 1

    def is_droppable(packet: memoryview) -> bool:
        for header in _units(packet, length_size):
            kind = header >> 1 & 63
            if kind < 32:  # a slice
                return kind < 15 and kind % 2 == 0
            if kind < 35:  # parameters of the frames that follow
                return False
        return False

    return is_droppable


def _never(packet: memoryview) -> bool:
    return False


# Codec -> the rule of a stream with this configuration record; None if there is no rule. The
# other codecs have none: tests/data/decoding/test_droppable.py compares all frames of each file.
_RULES: dict[str, Callable[[bytes], IsDroppable | None]] = {"h264": _h264, "hevc": _hevc}

# Codec -> whether the first byte of a unit is that of a slice.
_SLICES: dict[str, Callable[[int], bool]] = {
    "h264": lambda unit: 1 <= unit & 31 <= 5,
    "hevc": lambda unit: unit >> 1 & 63 < 32,
}


def droppable_packets(codec: str, config: bytes | None) -> IsDroppable:
    """The rule for a stream of an MP4 or Matroska file.

    Args:
        codec: FFmpeg's name of the codec
        config: the decoder's configuration record in the container (`avcC`, `hvcC`)
    """
    rule = None if config is None or codec not in _RULES else _RULES[codec](config)
    return _never if rule is None else rule


def frame_packets(codec: str, config: bytes | None) -> Callable[[memoryview], bool]:
    """Whether the data of a packet certainly have a frame; the arguments are as above.

    A packet of a few bytes may say that a frame repeats the one before, or have only metadata. In
    H.264 and H.265 the smallest slice is a frame, too.
    """
    is_slice = _SLICES.get(codec)
    if is_slice is None or not config or config[0] != 1 or len(config) < 23:
        return lambda packet: len(packet) >= MIN_BYTES
    length_size = (config[4 if codec == "h264" else 21] & 3) + 1
    return lambda packet: (
        len(packet) >= MIN_BYTES or any(map(is_slice, _units(packet, length_size)))
    )
