"""The page of a report: one HTML file that needs no network; the only file that uses jinja2."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from nlnet.data.shards.by_name import is_present
from nlnet.files import write_text
from nlnet.report import plots
from nlnet.report.analysis import TITLES, Analysis, Case, analyze
from nlnet.report.attention import ShownAttention
from nlnet.report.compare import Comparison, compare
from nlnet.report.previews import Picture, Preview, preview
from nlnet.report.runs import EvaluatedRun, read_run_folder

PLOTS = ("views", "calibration", "confusion", "loss", "accuracy")
TEMPLATES = Path(__file__).parent / "templates"
AttentionOf = Callable[[EvaluatedRun], ShownAttention | None]


@dataclass(frozen=True)
class _CasePart:
    """A wrong video on the page."""

    case: Case
    path: str
    labels: list[str]
    preview: Preview
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class RunPart:
    """One run on the page."""

    run: EvaluatedRun
    title: str
    analysis: Analysis
    worst: list[_CasePart]
    confident: list[_CasePart]
    plots: dict[str, Markup | None]  # by the names in PLOTS; None if there is nothing to draw
    attention: ShownAttention | None  # None: not asked for

    @property
    def environment(self) -> dict[str, str | None]:
        """The environment of the evaluation by name; empty if it was not recorded."""
        recorded = self.run.environment
        return {} if recorded is None else asdict(recorded)

    @property
    def gone(self) -> str:
        """One line about wrong videos whose files are gone; empty if there is none."""
        cases = [*self.worst, *self.confident]
        count = sum(not is_present(self.run.file(each.case.video)) for each in cases)
        if not count:
            return ""
        return (
            f"{count} of the {len(cases)} wrong videos shown are not below {self.run.root}; "
            "name the folder of the data set with --data-root PATH"
        )

    @property
    def summary(self) -> str:
        """The metrics with their intervals, in one line."""
        metrics = "  ".join(
            f"{name} {100 * each.value:.2f}% [{100 * each.low:.2f}, {100 * each.high:.2f}]"
            for name, each in self.analysis.metrics.items()
        )
        return f"{self.title}: {metrics}  ({len(self.run.scores.paths)} videos)"


def write_report(
    folders: Sequence[Path],
    out: Path | None = None,
    *,
    attention_of: AttentionOf = lambda run: None,
    data_root: Path | None = None,
) -> tuple[Path, list[RunPart]]:
    """Write the report of one or several runs; the file is written whole or not at all.

    Args:
        folders: of the runs, as `read_run_folder` takes them
        out: the HTML file; None is report.html in the folder of the first evaluation
        attention_of: gives the attention of the network of a run
        data_root: where the data set is now; None is the root in the config of each run

    Returns:
        the path of the HTML file, and what the page says of each run

    Raises:
        UserError: a run has no evaluation, a file is damaged, `out` cannot be written.
    """
    runs = [read_run_folder(folder, data_root) for folder in folders]
    parts = [
        _run_part(run, title, attention_of(run))
        for run, title in zip(runs, _titles(runs), strict=True)
    ]
    analyses = [part.analysis for part in parts]
    comparisons = [
        compare(runs, analyses, first, second)
        for first in range(len(runs))
        for second in range(first + 1, len(runs))
    ]
    out = runs[0].folder / "report.html" if out is None else out
    # A path can have bytes that are not UTF-8; the page shows a question mark for them.
    write_text(out, _render(parts, comparisons).encode(errors="replace").decode())
    return out, parts


def _titles(runs: Sequence[EvaluatedRun]) -> list[str]:
    """The names of the runs; their folders where two runs have the same name."""
    names = [run.config.name for run in runs]
    return [
        name if names.count(name) == 1 else str(run.folder)
        for name, run in zip(names, runs, strict=True)
    ]


def _run_part(run: EvaluatedRun, title: str, attention: ShownAttention | None) -> RunPart:
    analysis = analyze(run.scores, run.main_metric)
    drawn = {"calibration": plots.calibration_plot({title: analysis.calibration})}
    if len(analysis.by_views) > 1:
        drawn["views"] = plots.views_plot({title: analysis.by_views}, TITLES[analysis.main])
    if analysis.matrix is not None:
        drawn["confusion"] = plots.confusion_plot(analysis.matrix, run.scores.class_names)
    drawn |= _learning_plots(run)
    return RunPart(
        run=run,
        title=title,
        analysis=analysis,
        worst=[_case_part(run, case, attention) for case in analysis.worst],
        confident=[_case_part(run, case, attention) for case in analysis.confident],
        plots={name: Markup(drawn[name]) if name in drawn else None for name in PLOTS},
        attention=attention,
    )


def _case_part(run: EvaluatedRun, case: Case, attention: ShownAttention | None) -> _CasePart:
    path = run.file(case.video)
    labels = [run.scores.class_names[k] for k in case.labels]
    pictures = [] if attention is None else attention.pictures(path)
    return _CasePart(case, run.videos[case.video], labels, preview(path), pictures)


def _learning_plots(run: EvaluatedRun) -> dict[str, str]:
    """Loss and accuracy of each epoch of the training, as far as it is found."""
    epochs = run.training.get("epochs", [])
    losses, percentages = {}, {}
    for part, label in (("train", "training clips"), ("val", "validation videos")):
        for name in dict.fromkeys(key for epoch in epochs for key in epoch[part]):
            points = [(i, e[part][name]) for i, e in enumerate(epochs, 1) if name in e[part]]
            if name == "loss":
                losses[f"loss, {label}"] = points
            else:
                percentages[f"{TITLES.get(name, name)}, {label}"] = points
    drawn = {}
    if losses:
        drawn["loss"] = plots.learning_plot(losses, "loss")
    if percentages:
        drawn["accuracy"] = plots.learning_plot(percentages, "%")
    return drawn


def _render(parts: list[RunPart], comparisons: list[Comparison]) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    environment.filters["p_value"] = _p_value
    common = {}
    if len(parts) > 1:
        points = {part.title: part.analysis.by_views for part in parts if part.analysis.by_views}
        mains = {part.analysis.main for part in parts}
        if len(mains) == 1:  # of different metrics, the lines would not be comparable
            common["views"] = Markup(plots.views_plot(points, TITLES[mains.pop()]))
        calibrations = {part.title: part.analysis.calibration for part in parts}
        common["calibration"] = Markup(plots.calibration_plot(calibrations))
    return environment.get_template("report.html").render(
        parts=parts,
        comparisons=comparisons,
        common=common,
        titles=TITLES,
        metric_names=dict.fromkeys(name for part in parts for name in part.analysis.metrics),
        style=Markup((TEMPLATES / "report.css").read_text()),
        script=Markup((TEMPLATES / "report.js").read_text()),
        isnan=math.isnan,
    )


def _percent(value: float, digits: int = 2) -> str:
    return f"{100 * value:.{digits}f}"


def _p_value(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"
