"""One conversion: a weight file between formats, or a settings file to an experiment."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from nlnet.checks import one_of
from nlnet.config import ResNetConfig, RunConfig, parse_run, run_text
from nlnet.errors import UsageError, UserError
from nlnet.files import write_atomic
from nlnet.model.build import build_model
from nlnet.weights.experiment import experiment_text
from nlnet.weights.files import NLNET, WeightFile, write_foreign, write_nlnet
from nlnet.weights.load import match, read_weights, require_complete
from nlnet.weights.recognize import format_for
from nlnet.weights.rewrite import REWRITES, adapt_to_format
from nlnet.weights.sources.all import CODE_BASES, FORMATS


def convert(
    source: str,
    target: Path,
    *,
    from_: str | None = None,
    to: str = NLNET,
    run: RunConfig | None = None,
    inflation: str = "mean",
    rewrites: Sequence[str] = (),
) -> None:
    """Read a weight file, rewrite it, write it, and print what was done.

    Args:
        source: a path, a URL or a public name
        target: the file to write
        from_: the code base of the file, a name in CODE_BASES or nlnet; None recognizes it
        to: nlnet, or a name in CODE_BASES
        run: the network that the file is for; None: the network that it is of
        inflation: a name in INFLATIONS, for kernels without time
        rewrites: names in REWRITES, in this order

    Raises:
        UserError: the file is damaged, unsafe, incomplete or of an unknown format, or the target
            cannot hold its network. Nothing is written then.
    """
    one_of("--to", to, dict.fromkeys((NLNET, *CODE_BASES)))
    weights = read_weights(source, from_)
    for remark in weights.remarks:
        print(remark)
    print(f"{source}: {len(weights.state)} tensors, {weights.form or NLNET}")
    own = None if weights.config is None else parse_run(weights.config, source)
    if run is None and weights.form != "pytorchvideo_modules":
        shapes = None if own is None else _shapes(own, weights)
        require_complete(weights.state, source, shapes)
    for name in rewrites:
        state = one_of("--rewrite", name, REWRITES)(weights.state)
        weights, own = replace(weights, state=state, config=None), None  # of the state before
    if run is not None:
        own = run
        state, report = match(weights, _shapes(run, weights), source, inflation=inflation)
        weights = WeightFile(state, config=run_text(run), class_names=weights.class_names)
        print(report.summary())
    if to == NLNET:
        write_nlnet(target, weights, source)
        print(f"{target}: {len(weights.state)} tensors, {NLNET}")
        return
    form = _target_form(to, weights, own)
    long = any(tensor.dim() == 5 and tensor.shape[2] > 1 for tensor in weights.state.values())
    frames = (long or weights.frame_kernels) and not FORMATS[form].images
    state = adapt_to_format(weights.state, form)
    count = write_foreign(target, state, form, frame_kernels=frames)
    print(f"{target}: {count} tensors, {form}")
    _print_padding(form, weights, own)


def convert_settings(source: Path, target: Path, code_base: str | None) -> None:
    """Write the network of a code base's settings, a JSON file, as an experiment file.

    Raises UserError if the settings are unreadable or unsupported, or the file cannot be written.
    """
    if code_base is None:
        raise UsageError(f"{source}: settings need --from, one of {', '.join(CODE_BASES)}")
    try:
        facts = json.loads(source.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{source}: no JSON file that can be read ({error})") from error
    if not isinstance(facts, dict):
        raise UserError(f"{source}: holds a {type(facts).__name__}, not settings by name")
    text = experiment_text(target.stem, code_base, facts, source.name)
    write_atomic(target, text.encode())
    print(f"{target}: an experiment; its clips, protocol and recipe are the defaults")


def _shapes(run: RunConfig, weights: WeightFile) -> dict[str, Tensor]:
    """Return the tensors, without values, of a run's network with the classes of the file."""
    classes = len(weights.state.get("head.fc.weight", [0]))
    with torch.device("meta"):
        return build_model(run.model, classes).state_dict()


def _target_form(code_base: str, weights: WeightFile, run: RunConfig | None) -> str:
    """Return the format of a code base that holds this network; raise UserError if none does."""
    if run is not None:
        non_local = run.model.non_local
        if non_local.axes != "spacetime":
            raise UserError(f"{code_base} has no blocks of model.non_local.axes={non_local.axes}")
        pools = not isinstance(run.model, ResNetConfig) or run.model.pool2_kernel is not None
        return format_for(code_base, weights.state, non_local.subsample, pools)
    if weights.form is None:
        return format_for(code_base, weights.state, None, None)
    form = FORMATS[weights.form]
    if form.code_base == code_base:
        return weights.form
    # The tensors do not show where the blocks pool: assume the usual place of the code base.
    place = None if form.blocks is None else form.blocks.subsample[0]
    return format_for(code_base, weights.state, place, form.pools)


def _print_padding(form: str, weights: WeightFile, run: RunConfig | None) -> None:
    """Print a note if pool1 has another padding in the target: no tensor shows it."""
    here = FORMATS[weights.form].pool1_padding if weights.form is not None else None
    if run is not None and isinstance(run.model, ResNetConfig):
        here = run.model.pool1_padding[-1]
    there = FORMATS[form].pool1_padding
    if None not in (here, there) and here != there:
        print(
            f"note: pool1 is padded by {here} here and by {there} in {FORMATS[form].code_base}: "
            "the outputs differ slightly unless the padding is changed there"
        )
