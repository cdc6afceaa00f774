"""What tools/attend.py does: attention of a network on one video, as pictures and arrays."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nlnet.demo import DEMO, VIDEOS
from nlnet.errors import UsageError, UserError
from nlnet.files import write_atomic
from nlnet.model.non_local.rows import Position, effective_positions
from nlnet.numerics.denormals import flushed_denormals
from nlnet.recognizer.attention import ALL, AUTO, AttentionMap, VideoAttention
from nlnet.recognizer.faithfulness import deletion
from nlnet.recognizer.load import load_recognizer
from nlnet.recognizer.recognizer import Recognizer
from nlnet.report.attention_pictures import attention_gif, png, strip, title

PRINTED = 3  # positions of a row


@dataclass(frozen=True)
class AttendOptions:
    """What to show of a video, and where to write it."""

    query: str  # "t,y,x" or "auto"
    block: str | None
    method: str
    score: bool
    npz: bool
    out: Path | None  # None is outputs/attend/<name of the video>


@flushed_denormals()
def attend_video(
    checkpoint: str, video: str | None, experiment: str | None, device: str, options: AttendOptions
) -> None:
    """Print the predicted class and the strongest positions; write attention.png and GIF files.

    Raises:
        UsageError: the query is no position.
        UserError: the checkpoint or the video cannot be read, the network has no such block, the
            query is outside the clip, or a file cannot be written.
    """
    query = _parse_query(options.query)
    if video is None and checkpoint != DEMO:
        raise UsageError("VIDEO is missing: give the path of a video; only demo has its own")
    source = str(VIDEOS[0]) if video in (None, DEMO) else str(video)
    recognizer = load_recognizer(checkpoint, experiment=experiment, device=device)
    attention = recognizer.attention(source, query, options.block, method=options.method)
    out = options.out or Path("outputs") / "attend" / Path(source).stem
    best = attention.predicted
    print(f"{source}: {100 * attention.probabilities[best]:.1f} % {attention.class_names[best]}")
    for each in attention.maps:
        print("\n".join(_describe(each, query)))
        if options.score:
            print(_score_line(recognizer, source, each))
    for path in _write_pictures(attention, out, npz=options.npz):
        print(path)


def _parse_query(text: str) -> Position | str:
    """Read `t,y,x`, `auto` or `all`; raises UsageError for another text."""
    if text in (AUTO, ALL):
        return text
    words = text.split(",")
    if len(words) != 3 or not all(word.strip().lstrip("-").isdecimal() for word in words):
        raise UsageError(f"--query {text} is not t,y,x (frame, row, column), {AUTO} or {ALL}")
    t, y, x = map(int, words)
    return t, y, x


def _describe(each: AttentionMap, query: Position | str) -> list[str]:
    """The query, how many positions its row attends to, and the strongest of them."""
    weights = each.weights
    count = float(effective_positions(torch.from_numpy(weights)[None])[0])
    chosen = " (auto: the most concentrated row)" if query == AUTO and each.query else ""
    if each.query is None:
        chosen = " (not of one query)"
    lines = [f"{title(each)}{chosen}: {count:.1f} effective positions of {weights.size}"]
    for (t, y, x), weight in each.strongest(PRINTED):
        lines.append(f"   {weight:8.4f} at t={t} y={y} x={x}")
    return lines


def _score_line(recognizer: Recognizer, video: str, each: AttentionMap) -> str:
    """The deletion score of a map."""
    clip = recognizer.clip(video).to(recognizer.device)
    curve = deletion(recognizer.model, clip, each)
    return (
        f"   deletion: area between random and attended positions {curve.area_between:+.3f} "
        "(above 0: the attended positions matter more)"
    )


def _write_pictures(attention: VideoAttention, out: Path, *, npz: bool) -> list[Path]:
    """Write the pictures and, with `npz`, the arrays; returns the paths.

    Raises UserError if a file cannot be written.
    """
    files = {"attention.png": png(strip(attention))}
    files |= {f"{each.layer}.gif": attention_gif(attention, each) for each in attention.maps}
    if npz:
        files["attention.npz"] = arrays(attention)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{out}: cannot be created ({error.strerror}); give another --out"
        ) from error
    for name, data in files.items():
        write_atomic(out / name, data)
    return [out / name for name in files]


def arrays(attention: VideoAttention) -> bytes:
    """An .npz file: the clip, the probabilities, and the rows and sizes of each map."""
    content: dict[str, np.ndarray] = {
        "frames": attention.frames,
        "class_names": np.array(attention.class_names),
        "probabilities": attention.probabilities,
    }
    for each in attention.maps:
        for name, weights in each.terms.items():
            content[f"{each.layer}/{name}"] = weights
        content[f"{each.layer}/query"] = np.array(each.query or ())
        content[f"{each.layer}/map_sizes"] = np.array(each.map_sizes)
        content[f"{each.layer}/kernel"] = np.array(each.kernel)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **content)  # type: ignore[arg-type]
    return buffer.getvalue()
