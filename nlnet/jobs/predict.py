"""What tools/predict.py does with a recognizer and videos: print, and write files."""

import csv
import io
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from nlnet.checks import require_libraries
from nlnet.data.decoding.stream import is_live
from nlnet.demo import DEMO
from nlnet.errors import UsageError, UserError
from nlnet.files import write_atomic, write_text
from nlnet.jobs.features import check_features_file, write_features
from nlnet.numerics.denormals import flushed_denormals
from nlnet.recognizer.inputs import find_videos
from nlnet.recognizer.load import load_recognizer
from nlnet.recognizer.prediction import VideoPrediction, WindowPrediction, boundaries
from nlnet.recognizer.recognizer import TOP, Recognizer
from nlnet.runs.logger import progress_bar


@dataclass(frozen=True)
class PredictOptions:
    """What is predicted, and the files that are written; None writes none."""

    json: Path | None = None
    csv: Path | None = None
    features: Path | None = None  # .npz or .parquet
    over_time: bool = False  # also an annotated video and a timeline of each video
    out: Path = Path("outputs/predict")  # the folder of these
    window: float | None = None  # seconds
    step: float | None = None  # seconds
    watch: str | None = None  # a camera or a URL


@dataclass(frozen=True)
class _Result:
    """The predictions for one video: one for the whole, or one for each window."""

    video: str
    whole: VideoPrediction | None = None
    parts: tuple[WindowPrediction, ...] = ()
    error: str | None = None


@flushed_denormals()
def predict(
    checkpoint: str,
    sources: Sequence[str],
    options: PredictOptions,
    *,
    experiment: str | None = None,
    device: str = "auto",
) -> None:
    """Predict the classes of videos; print them and write the files of the options.

    Raises:
        UsageError: the arguments do not fit together.
        UserError: the checkpoint cannot be read, there is no video, or some videos could not be
            read. The results of the others are written before.
    """
    _check(checkpoint, sources, options)
    videos = find_videos(sources or [DEMO]) if options.watch is None else []
    recognizer = load_recognizer(checkpoint, experiment=experiment, device=device)
    if options.watch is not None:
        watch(recognizer, options.watch, options)
        return
    if options.features is not None:
        errors = write_features(recognizer, videos, options.features, options.window, options.step)
    else:
        produce = _results_over_time if options.over_time else _results_of_videos
        results = list(produce(recognizer, videos, options))
        _write_tables(results, recognizer, checkpoint, options)
        errors = [result.error for result in results if result.error is not None]
    if errors:
        raise UserError(
            f"{len(errors)} of {len(videos)} videos could not be read; the output names each with "
            "its cause"
        )


def _check(checkpoint: str, sources: Sequence[str], options: PredictOptions) -> None:
    """Raise UsageError for arguments that do not fit together, before anything is computed."""
    if not sources and options.watch is None and checkpoint != DEMO:
        raise UsageError("no VIDEO is given; give a file, a folder or a list (see --help)")
    if options.watch is not None and (sources or options.features or options.over_time):
        raise UsageError("--watch takes no VIDEO, --features or --over-time; remove them")
    if options.features is not None:
        if options.json or options.csv or options.over_time:
            raise UsageError("--features writes no predictions; give it in a command of its own")
        check_features_file(options.features)
    if options.over_time:
        require_libraries("report", ["jinja2", "matplotlib"])
        _create_folder(options.out)


def _results_of_videos(
    recognizer: Recognizer, videos: Sequence[str | Path], options: PredictOptions
) -> Iterator[_Result]:
    """Predict and print each video."""
    live = [video for video in videos if is_live(video)]
    files = [video for video in videos if not is_live(video)]
    of_files = progress_bar(recognizer.predict_files(files), "videos")
    for prediction in chain(of_files, (_predict_live(recognizer, video) for video in live)):
        say(str(prediction))
        yield _Result(prediction.video, prediction, error=prediction.error)


def _predict_live(recognizer: Recognizer, video: str | Path) -> VideoPrediction:
    try:
        return recognizer.predict(video)
    except UserError as error:
        return VideoPrediction(str(video), (), _cause(error, video))


def _results_over_time(
    recognizer: Recognizer, videos: Sequence[str | Path], options: PredictOptions
) -> Iterator[_Result]:
    """Predict each window of each video, print a summary, and write the pictures."""
    for video, stem in zip(videos, file_stems(videos), strict=True):
        started = time.perf_counter()
        say(str(video))
        try:
            windows = recognizer.predict_over_time(video, options.window, options.step)
            parts = tuple(progress_bar(windows, "windows"))
        except UserError as error:
            cause = _cause(error, video)
            say(f"   cannot be read: {cause}")
            yield _Result(str(video), error=cause)
            continue
        seconds = max(time.perf_counter() - started, 1e-9)
        for line in segments(parts):
            say(f"   {line}")
        length = parts[-1].end
        say(f"   {length:.1f} s of video in {seconds:.1f} s, {length / seconds:.1f} x real time")
        _write_pictures(video, parts, options.out / stem, recognizer.class_names)
        yield _Result(str(video), parts=parts)


def _write_pictures(
    video: str | Path, parts: Sequence[WindowPrediction], stem: Path, names: Sequence[str]
) -> None:
    """Write the timeline, and the annotated video unless the source can be read only once."""
    from nlnet.report.over_time import write_annotated  # imports matplotlib, which is optional
    from nlnet.report.timeline import timeline

    picture = stem.with_name(f"{stem.name}.png")
    write_atomic(picture, timeline(parts, names, Path(video).name))
    say(f"   {picture}")
    if not is_live(video):
        annotated = stem.with_name(f"{stem.name}.mp4")
        write_annotated(video, parts, annotated, names)
        say(f"   {annotated}")


def watch(recognizer: Recognizer, device: str, options: PredictOptions) -> None:
    """Print the classes of a camera or a stream until it ends or the user presses Ctrl-C."""
    with suppress(KeyboardInterrupt):
        for part in recognizer.predict_over_time(device, options.window, options.step, top=3):
            say(str(part))


def say(text: str) -> None:
    """Print a line."""
    print(_printable(text), flush=True)


def _printable(text: str) -> str:
    """The text with `?` in place of the bytes of a path that are not UTF-8."""
    return text.encode(errors="replace").decode()


def _create_folder(folder: Path) -> None:
    """Create a folder for results; raises UserError if that is impossible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be created ({error.strerror}); give another folder with --out"
        ) from error


def _cause(error: UserError, video: str | Path) -> str:
    """The message without the name of the video, which is printed before it."""
    return str(error).removeprefix(f"{video}: ")


def segments(parts: Sequence[WindowPrediction]) -> Iterator[str]:
    """One line for each sequence of windows with the same best class, with its mean probability."""
    edges = boundaries(parts)
    first = 0
    for i in range(1, len(parts) + 1):
        best = parts[first].top[0].name
        if i == len(parts) or parts[i].top[0].name != best:
            percent = 100 * sum(part.top[0].probability for part in parts[first:i]) / (i - first)
            yield f"{edges[first]:7.1f} - {edges[i]:7.1f} s  {percent:5.1f} %  {best}"
            first = i


def file_stems(videos: Sequence[str | Path]) -> list[str]:
    """A file name without suffix for the results of each video; equal ones get a number."""
    stems: list[str] = []
    for video in videos:
        stem = Path(video).stem or "video"
        number, name = 1, stem
        while name in stems:
            number += 1
            name = f"{stem}_{number}"
        stems.append(name)
    return stems


def _write_tables(
    results: Sequence[_Result], recognizer: Recognizer, checkpoint: str, options: PredictOptions
) -> None:
    """Write --json and --csv."""
    if options.json is not None:
        content = {
            "checkpoint": checkpoint,
            "class_names": recognizer.class_names,
            "videos": [_json_of(result) for result in results],
        }
        write_text(options.json, json.dumps(content, indent=2) + "\n")
    if options.csv is not None:
        text = io.StringIO(newline="")
        rows = csv.writer(text)
        count = min(TOP, len(recognizer.class_names))
        ranks = [f"{word}_{i}" for i in range(1, count + 1) for word in ("class", "probability")]
        rows.writerow(["video", "start", "end", *ranks, "error"])
        for result in results:
            rows.writerows(_csv_rows(result, 2 * count))
        write_text(options.csv, _printable(text.getvalue()))


def _json_of(result: _Result) -> dict[str, object]:
    row: dict[str, object] = {"video": result.video, "error": result.error}
    if result.whole is not None:
        row["top"] = [each._asdict() for each in result.whole.top]
    if result.parts:
        row["windows"] = [
            {"start": part.start, "end": part.end, "top": [each._asdict() for each in part.top]}
            for part in result.parts
        ]
    return row


def _csv_rows(result: _Result, width: int) -> Iterator[list[object]]:
    if result.error is not None:
        yield [result.video, "", "", *[""] * width, result.error]
    elif result.whole is not None:
        yield [result.video, "", "", *_flat(result.whole), ""]
    for part in result.parts:
        yield [result.video, f"{part.start:.3f}", f"{part.end:.3f}", *_flat(part), ""]


def _flat(prediction: VideoPrediction | WindowPrediction) -> list[str]:
    return [text for each in prediction.top for text in (each.name, f"{each.probability:.6f}")]
