"""The file formats of uploads, recognized by the first bytes of the content.

FFmpeg does not guess the format of an upload: some of its formats are lists of other files or
addresses, which it would open. The formats here hold all of their content themselves.
"""

HEAD = 200  # bytes that tell the format
NAMES = "MP4, MOV, MKV, WebM, AVI, FLV, GIF, WMV, OGV, MPG or TS"
# (FFmpeg's name, marks): a file has a format if it has the bytes of all marks at their offsets.
SIGNATURES: tuple[tuple[str, tuple[tuple[int, bytes], ...]], ...] = (
    ("mov", ((4, b"ftyp"),)),
    ("mov", ((4, b"moov"),)),
    ("mov", ((4, b"mdat"),)),
    ("mov", ((4, b"wide"),)),
    ("mov", ((4, b"free"),)),
    ("mov", ((4, b"skip"),)),
    ("matroska", ((0, b"\x1a\x45\xdf\xa3"),)),
    ("avi", ((0, b"RIFF"), (8, b"AVI "))),
    ("flv", ((0, b"FLV\x01"),)),
    ("gif", ((0, b"GIF8"),)),
    ("asf", ((0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),)),
    ("ogg", ((0, b"OggS"),)),
    ("mpeg", ((0, b"\x00\x00\x01\xba"),)),
    ("mpegts", ((0, b"\x47"), (188, b"\x47"))),  # the first byte of each packet
)


def container_format(head: bytes) -> str | None:
    """FFmpeg's name of the format of a file with these first bytes; None if it is unknown."""
    for name, marks in SIGNATURES:
        if all(head[at : at + len(mark)] == mark for at, mark in marks):
            return name
    return None
