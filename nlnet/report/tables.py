"""The paper's tables with our numbers beside the published ones."""

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nlnet.cli.choices import choices
from nlnet.config import ModelConfig, RunConfig
from nlnet.errors import UserError
from nlnet.model.build import build_model
from nlnet.model.cost import describe
from nlnet.report.formats import Table
from nlnet.report.paper import TABLES, WORDS, PaperRow, PaperTable, Ratios
from nlnet.report.sweeps import (
    ROW_OF,
    RunAccuracy,
    find_results,
    mean_and_deviation,
    require_one_setting,
)


@dataclass(frozen=True)
class _Line:
    """One row of the output: a network of one depth, and the runs that were found."""

    depth: int
    row: PaperRow
    results: list[RunAccuracy]


def paper_table(folders: Sequence[Path], name: str) -> Table:
    """Return a table of the paper with the results of the runs below the folders.

    Args:
        folders: of sweeps or runs
        name: a name in TABLES

    Raises:
        UserError: the folders have no run of the table (the message names the command that makes
            them), or two runs of one row differ in more than their seeds.
    """
    paper = TABLES[name]
    results = find_results(folders)
    depths = sorted({result.depth for result in results})
    lines = [line for depth in depths for line in _lines(name, paper, depth, results)]
    if not any(line.results for line in lines):
        depth = min(paper.experiments)
        command = f"python tools/train.py -m +experiment={paper.experiments[depth]}"
        raise UserError(
            f"{', '.join(str(folder) for folder in folders)}: no finished run of table {name}; "
            f"make them with: {command} +sweep={paper.sweep} data.root=PATH"
        )
    ratios = _ratios(paper, lines)
    cells = [_cells(paper, line, ratios[i]) for i, line in enumerate(lines)]
    header = [
        *("Depth", "Network", "Top-1", "Top-5", "Published"),
        *("Parameters", "Multiply-adds", "Seeds"),
    ]
    return Table(paper.title, header, cells, _notes(paper, lines))


def _lines(name: str, paper: PaperTable, depth: int, results: list[RunAccuracy]) -> list[_Line]:
    """The rows of a depth: those of the paper, then other networks of the same comparison."""
    found: dict[str, list[RunAccuracy]] = {}
    for result in results:
        key = ROW_OF[name](result.run)
        if key is not None and result.depth == depth:
            found.setdefault(key, []).append(result)
    rows = list(paper.rows)
    rows += [PaperRow(key, _title(key), "", {}) for key in found if key not in _keys(paper)]
    lines = []
    for row in rows:
        of_row = found.get(row.key, [])
        require_one_setting(of_row, f"{row.title} of table {name}")
        if of_row or (depth in row.published) or _command(paper, row, depth, results):
            lines.append(_Line(depth, row, of_row))
    return lines if found else []


def _keys(paper: PaperTable) -> set[str]:
    return {row.key for row in paper.rows}


def _title(key: str) -> str:
    """The title of a row that the paper does not have."""
    return f"{key} blocks" if key.isdecimal() else key.replace("_", " ")


def _command(
    paper: PaperTable, row: PaperRow, depth: int, results: list[RunAccuracy]
) -> str | None:
    """The command that makes the run of a row; None if no config group has this network."""
    try:
        words = row.words.format(**WORDS.get(depth, {}))
    except KeyError:
        return None
    same_depth = [result.run for result in results if result.depth == depth]
    experiment, root = paper.experiments.get(depth, "NAME"), "PATH"
    name = experiment
    if same_depth:
        run = same_depth[0]
        root, name = run.data.root, run.name.split("/sweep_")[0]
        known = [part for part in (name, name.split("/")[0]) if part in _experiments()]
        experiment = known[0] if known else "NAME"
    # A folder in that of the sweep: a sweep of one run would use the folder of the whole sweep.
    name = f"{name}/sweep_{paper.sweep}/{row.key}"
    return f"python tools/train.py +experiment={experiment} {words} data.root={root} name={name}"


def _experiments() -> list[str]:
    return choices("experiment")


def _cells(paper: PaperTable, line: _Line, ratios: Ratios | None) -> list[str]:
    published = line.row.published.get(line.depth)
    mark = ""
    if published is None and line.row.published and not _has_depth(paper, line.depth):
        published, mark = line.row.published[min(line.row.published)], "*"
    top1 = [result.top1 for result in line.results]
    top5 = [result.top5 for result in line.results]
    costs = ["-", "-"] if ratios is None else [f"{ratio:.2f}x" for ratio in ratios]
    if line.depth in line.row.ratios:
        theirs = line.row.ratios[line.depth]
        costs = [f"{cost} ({one:.1f}x)" for cost, one in zip(costs, theirs, strict=True)]
    return [
        f"R{line.depth}",
        line.row.title,
        _accuracy(top1),
        _accuracy(top5),
        "-" if published is None else f"{published[0]:.1f} / {published[1]:.1f}{mark}",
        *costs,
        str(len(line.results)),
    ]


def _has_depth(paper: PaperTable, depth: int) -> bool:
    return any(depth in row.published for row in paper.rows)


def _accuracy(values: list[float]) -> str:
    if not values:
        return "missing"
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.2f}" if math.isnan(deviation) else f"{mean:.2f} ± {deviation:.2f}"


def _notes(paper: PaperTable, lines: list[_Line]) -> list[str]:
    """What a reader must know: protocols, sources, missing runs with their commands."""
    results = [result for line in lines for result in line.results]
    protocols = sorted({result.protocol for result in results})
    notes = [
        f"Accuracy in percent; ours: {'; '.join(protocols)}.",
        "Published: Wang et al., CVPR 2018, Kinetics-400, 10 clips, top-1 / top-5"
        + (", cost in parentheses." if any(row.ratios for row in paper.rows) else "."),
        "Parameters and multiply-adds are relative to the baseline, without the classifier.",
    ]
    if any(len(line.results) > 1 for line in lines):
        notes.append("± is the sample standard deviation over seeds.")
    strange = sorted({line.depth for line in lines if not _has_depth(paper, line.depth)})
    if strange:
        depths = ", ".join(f"R{depth}" for depth in strange)
        shown = min(depth for row in paper.rows for depth in row.published)
        notes.append(f"* The paper has no {depths}; the published numbers are those of R{shown}.")
    for line in lines:
        command = _command(paper, line.row, line.depth, results)
        if not line.results and command is not None:
            notes.append(f"Missing: R{line.depth}, {line.row.title}; {command}")
    return notes


def _ratios(paper: PaperTable, lines: list[_Line]) -> list[Ratios | None]:
    """The cost of each row relative to the baseline of its depth; None without run or baseline."""
    costs = [_cost(line.results[0].run) if line.results else None for line in lines]
    baselines: dict[int, Ratios] = {}  # absolute
    for line, cost in zip(lines, costs, strict=True):
        if line.row.key == paper.rows[0].key and cost is not None:
            baselines[line.depth] = cost
    for line in lines:
        # In tables 2a to 2d, the baseline is any of the networks without its blocks.
        if line.depth not in baselines and line.results and paper.rows[0].key in ("none", "0"):
            baselines[line.depth] = _cost(_without_blocks(line.results[0].run))
    ratios: list[Ratios | None] = []
    for line, cost in zip(lines, costs, strict=True):
        base = baselines.get(line.depth)
        if cost is None or base is None:
            ratios.append(None)
        else:
            ratios.append((cost[0] / base[0], cost[1] / base[1]))
    return ratios


def _without_blocks(run: RunConfig) -> RunConfig:
    plain = deepcopy(run)
    non_local = plain.model.non_local
    non_local.res2, non_local.res3, non_local.res4, non_local.res5 = [], [], [], []
    return plain


def _cost(run: RunConfig) -> Ratios:
    """Parameters and multiply-adds of one clip, without the classifier.

    The classifier depends on the number of classes, which is a matter of the data set.
    """
    model: ModelConfig = run.model
    build = partial(build_model, model, 2)
    stages = describe(build, run.data.clip.num_frames, run.data.clip.crop_size)
    body = [stage for stage in stages if stage.name != "head"]
    return sum(s.parameters for s in body), sum(s.multiply_adds for s in body)
