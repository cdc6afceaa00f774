"""Convert a file of weights between nlnet and the code bases that published such networks.

Reading is safe whatever the file holds; nothing in it is run. Every key must find its place: what
is left over is listed, and nothing is written. A .json file of a code base's own settings becomes
an experiment's file: the same network, in our terms.
"""

import argparse
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import torch
from omegaconf import OmegaConf

import nlnet
from nlnet.checks import one_of
from nlnet.cli.compose import compose_run
from nlnet.cli.tool import run_parser
from nlnet.config import ResNetConfig, RunConfig, parse_run, run_text
from nlnet.errors import UsageError, UserError
from nlnet.model.build import build_model
from nlnet.weights.files import (
    NLNET,
    WeightFile,
    read_weight_file,
    write_foreign,
    write_nlnet,
    write_whole,
)
from nlnet.weights.formats import CODE_BASES, FORMATS, format_for
from nlnet.weights.load import INFLATIONS, match, require_whole
from nlnet.weights.public import locate
from nlnet.weights.published import READERS, from_file
from nlnet.weights.rewrite import REWRITES, express

EXAMPLES = """\
Examples:
  python tools/convert.py i3d_nonlocal_8x8_IN_pretrain_400k.pkl i3d_nl5.pt
  python tools/convert.py caffe2/i3d_nonlocal_8x8 i3d_nl5.pyth --to slowfast
  python tools/convert.py torchvision/resnet50 i3d.pt --experiment caffe2/i3d_8x8
  python tools/convert.py settings.json configs/experiment/mine.yaml --from slowfast

SRC is a path, a URL or a public name; nlnet's own tools take such files as weights=SRC, too.
Rewritings of --rewrite keep a network's answer: fold_norms and unfold_norms (batch norm, fixed
affine map), fold_out_bias and add_out_bias (the bias of W_z in the running mean behind it),
scale_theta and unscale_theta (for blocks that scale their softmax, and that do not).

settings.json holds, as the code base spells them, caffe2: MODEL and NONLOCAL; slowfast: settings,
frames (and crop_size); mmaction2: backbone and head; pytorchvideo: settings; torchvision: depth.
"""


class Parser(argparse.ArgumentParser):
    """Tells a wrong word in one line, like the other tools."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see --help")


def arguments() -> argparse.Namespace:
    parser = Parser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    bases = ", ".join((NLNET, *CODE_BASES))
    parser.add_argument("source", metavar="SRC", help="a path, a URL or a public name")
    parser.add_argument("target", metavar="DST", type=Path, help="the file to write")
    parser.add_argument("--from", dest="from_", metavar="FORMAT", help=f"recognised; or {bases}")
    parser.add_argument("--to", default=NLNET, metavar="FORMAT", help="nlnet, or one of the same")
    parser.add_argument(
        "--experiment",
        metavar="NAME",
        help="the network that DST is for, a file of configs/experiment: kernels without time are "
        "inflated, norms and biases rewritten, and every key is checked",
    )
    parser.add_argument(
        "--inflation", default="mean", metavar="RULE", help=f"{' or '.join(INFLATIONS)}"
    )
    parser.add_argument(
        "--rewrite",
        action="append",
        default=[],
        metavar="NAME",
        help=f"in this order: {', '.join(REWRITES)}",
    )
    return parser.parse_args()


def shapes(run: RunConfig, weights: WeightFile) -> dict[str, torch.Tensor]:
    """The tensors, without numbers, of a run's network for as many classes as the file has."""
    classes = len(weights.state.get("head.fc.weight", [0]))
    with torch.device("meta"):
        return build_model(run.model, classes).state_dict()


def write_experiment(source: Path, target: Path, code_base: str | None) -> None:
    """Write the network of a code base's settings as a file of configs/experiment."""
    if code_base is None:
        raise UsageError(f"{source}: settings want --from, one of {', '.join(READERS)}")
    try:
        facts = json.loads(source.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{source}: no JSON file that can be read ({error})") from error
    if not isinstance(facts, dict):
        raise UserError(f"{source}: holds a {type(facts).__name__}, not settings by name")
    tree = {"name": target.stem, "model": from_file(code_base, facts)}
    text = f"# @package _global_\n# The network of {source.name}, settings of {code_base}.\n"
    write_whole(target, io.BytesIO((text + OmegaConf.to_yaml(tree)).encode()))
    print(f"{target}: an experiment; its clips, protocol and recipe are the defaults")


def convert(args: argparse.Namespace) -> None:
    """Read, rewrite, write, and say what was done."""
    if args.source.endswith(".json"):
        write_experiment(Path(args.source), args.target, args.from_)
        return
    one_of("--to", args.to, dict.fromkeys((NLNET, *CODE_BASES)))
    weights = read_weight_file(locate(args.source), args.from_)
    print(f"{args.source}: {len(weights.state)} tensors, {weights.form or NLNET}")
    run = None if weights.config is None else parse_run(weights.config, args.source)
    if args.experiment is None and weights.form != "pytorchvideo_modules":
        require_whole(weights.state, args.source, None if run is None else shapes(run, weights))
    for name in args.rewrite:
        state = one_of("--rewrite", name, REWRITES)(weights.state)
        weights, run = replace(weights, state=state, config=None), None  # of what it was
    if args.experiment is not None:
        run = compose_run(args.experiment)
        target = shapes(run, weights)
        state, report = match(weights, target, args.source, inflation=args.inflation)
        weights = WeightFile(state, config=run_text(run), class_names=weights.class_names)
        print(report.summary())
    if args.to == NLNET:
        write_nlnet(args.target, weights, made_by(args.source))
        print(f"{args.target}: {len(weights.state)} tensors, {NLNET}")
    else:
        form = target_form(args.to, weights, run)
        long = any(tensor.dim() == 5 and tensor.shape[2] > 1 for tensor in weights.state.values())
        frames = (long or weights.frame_kernels) and not FORMATS[form].images
        count = write_foreign(args.target, express(weights.state, form), form, frame_kernels=frames)
        print(f"{args.target}: {count} tensors, {form}")
        note_padding(form, weights, run)


def target_form(code_base: str, weights: WeightFile, run: RunConfig | None) -> str:
    """Which of a code base's formats holds this network; raises UserError where none does."""
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
    # Of the places that a code base knows, the one that its settings name first.
    places = form.blocks.subsample if form.blocks is not None else frozenset[str]()
    place = next((place for place in ("input", "embedded", "none") if place in places), None)
    return format_for(code_base, weights.state, place, form.pools)


def note_padding(form: str, weights: WeightFile, run: RunConfig | None) -> None:
    """Say where the same tensors make another network: the border of pool1 is in no tensor."""
    here = FORMATS[weights.form].pool1_padding if weights.form is not None else None
    if run is not None and isinstance(run.model, ResNetConfig):
        here = run.model.pool1_padding[-1]
    there = FORMATS[form].pool1_padding
    if None not in (here, there) and here != there:
        print(
            f"note: pool1 is padded by {here} here and by {there} in {FORMATS[form].code_base}: "
            "its answers differ slightly unless that is changed there"
        )


def made_by(source: str) -> dict[str, str]:
    return {"source": source, "nlnet": nlnet.__version__, "torch": str(torch.__version__)}


if __name__ == "__main__":
    run_parser(lambda: convert(arguments()))
