"""What the server knows, as values for JSON. Pictures are data URIs."""

from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nlnet.model.non_local.rows import effective_positions
from nlnet.recognizer.attention import AttentionMap, VideoAttention, attention_blocks
from nlnet.recognizer.recognizer import Recognizer
from nlnet.report.attention_pictures import frame_picture, heat_frames, png
from nlnet.report.previews import data_uri
from nlnet.report.statistics import spread_ends
from nlnet.serve.analysis import AnalyzedVideo
from nlnet.serve.limits import Limits

MAX_SHOWN = 32  # frames of a clip on the page


def network_answer(
    name: str, recognizer: Recognizer, limits: Limits, samples: Iterable[str]
) -> dict[str, object]:
    """What the page needs before an upload: the network, the limits and the sample videos."""
    return {
        "name": name,
        "class_names": list(recognizer.class_names),
        "blocks": list(attention_blocks(recognizer.model)),
        "upload_bytes": limits.upload_bytes,
        "video_seconds": limits.video_seconds,
        "samples": list(samples),
    }


def video_answer(video: AnalyzedVideo, num_before: int, first: int) -> dict[str, object]:
    """The state of a video, and its predictions from window `first` on."""
    return {
        "id": video.key,
        "state": video.state,
        "before": num_before,
        "windows": [
            {
                "start": part.start,
                "end": part.end,
                "top": [each._asdict() for each in part.top],
            }
            for part in video.predictions[first:]
        ],
    }


def clip_answer(clip: Tensor) -> dict[str, object]:
    """The frames of a clip (1, 3, T, S, S), and their numbers."""
    frames = clip[0].permute(1, 2, 3, 0).numpy()
    shown = spread_ends(len(frames), MAX_SHOWN)
    return {
        "size": frames.shape[:3],
        "shown": shown,
        "frames": [_uri(frame_picture(frames[t])) for t in shown],
    }


def attention_answer(attention: VideoAttention) -> dict[str, object]:
    """The predicted class of a clip and its maps, as heat maps over the shown frames."""
    best = attention.predicted
    return {
        "class": attention.class_names[best],
        "probability": float(attention.probabilities[best]),
        "shown": spread_ends(len(attention.frames), MAX_SHOWN),
        "maps": [_map_answer(attention, each) for each in attention.maps],
    }


def _map_answer(attention: VideoAttention, each: AttentionMap) -> dict[str, object]:
    shown = spread_ends(len(attention.frames), MAX_SHOWN)
    terms = []
    for name, weights in each.terms.items():
        heat = heat_frames(attention.frames, each, weights)
        terms.append(
            {
                "name": name,
                "largest": float(np.abs(weights).max()),
                "signed": bool(weights.min() < 0),
                "frames": [_uri(heat[t]) for t in shown],
            }
        )
    count = float(effective_positions(torch.from_numpy(each.weights)[None])[0])
    return {
        "layer": each.layer,
        "query": each.query,
        "effective": count,
        "positions": each.weights.size,
        "terms": terms,
    }


def _uri(picture: Image.Image) -> str:
    return data_uri(png(picture), "image/png")
