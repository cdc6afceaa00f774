"""What a report says about the attention of a network: pictures of videos, and deletion scores."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from nlnet.errors import UserError
from nlnet.recognizer.attention import AttentionMap
from nlnet.recognizer.faithfulness import LayerScore, score_layers
from nlnet.recognizer.recognizer import Recognizer
from nlnet.report.attention_pictures import heat_clip, title
from nlnet.report.previews import NUM_FRAMES, Picture, animation
from nlnet.report.statistics import spread_ends, spread_evenly

MOST_BLOCKS = 4  # that a report shows of a network
SECONDS = 60.0  # no video is scored after this time


@dataclass(frozen=True)
class ShownAttention:
    """The attention of the network of one run; without a recognizer, the reason why not."""

    note: str  # how the maps are made, or why there are none
    recognizer: Recognizer | None = None
    method: str = ""  # a name in METHODS
    scores: Sequence[LayerScore] = ()

    def pictures(self, video: Path) -> list[Picture]:
        """One animation for each block; none if the video cannot be read."""
        if self.recognizer is None:
            return []
        try:
            attention = self.recognizer.attention(str(video), method=self.method)
        except UserError:  # the preview of the video tells the reason
            return []
        return [
            Picture(title(each), animation(heat_clip(attention.frames, each, NUM_FRAMES)))
            for each in _some(attention.maps)
        ]


def _some(maps: Sequence[AttentionMap]) -> list[AttentionMap]:
    """At most MOST_BLOCKS of the maps, evenly spread, the last one included."""
    return [maps[i] for i in spread_ends(len(maps), MOST_BLOCKS)]


def score_videos(
    recognizer: Recognizer, videos: Sequence[Path], count: int, *, method: str
) -> list[LayerScore]:
    """The deletion scores of each layer on `count` of the videos, evenly spread over the list.

    A video that cannot be read is left out. There are fewer videos, at least one, if SECONDS are
    over.
    """
    if count == 0:
        return []
    chosen = [videos[i] for i in spread_evenly(len(videos), min(count, len(videos)))]
    return score_layers(
        recognizer.model, _clips(recognizer, chosen), method=method, seconds=SECONDS
    )


def _clips(recognizer: Recognizer, videos: Sequence[Path]) -> Iterator[Tensor]:
    for video in videos:
        try:
            clip = recognizer.clip(str(video))
        except UserError:
            continue
        yield clip.to(recognizer.device)
