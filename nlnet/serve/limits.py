"""What the server accepts, and the errors of requests that it refuses."""

from dataclasses import dataclass

from nlnet.errors import UserError


@dataclass(frozen=True)
class Limits:
    """The largest upload, and what decoding it may cost."""

    upload_bytes: int = 200_000_000
    video_seconds: float = 60.0  # length of a video
    frame_pixels: int = 4096 * 2160  # of one frame
    decode_seconds: float = 60.0  # time that the decoder of one video may take
    decode_bytes: int = 2 * 2**30  # memory that it may use
    waiting: int = 8  # videos that are uploaded, wait or are analyzed, at one time
    pictures: int = 8  # requests for pictures that wait, at one time
    kept_bytes: int = 2**30  # clips of all videos that are kept in memory
    upload_seconds: float = 600.0  # that one upload may take
    idle_seconds: float = 20.0  # without data, after which an upload has failed


class Refusal(UserError):
    """A request that the server refuses, with the HTTP status of the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def busy(what: str) -> Refusal:
    """The refusal of a request for which the queue has no place."""
    return Refusal(503, f"the server is busy: its queue of {what} is full; try again in a moment")
