"""The words of tools/convert.py.

This module does not load torch, which --help does not need. A test compares the names in the help
text with those that the converter knows.
"""

import argparse
from pathlib import Path

from nlnet.cli.arguments import Parser

FORMAT_NAMES = ("nlnet", "caffe2", "slowfast", "mmaction2", "pytorchvideo", "torchvision")
INFLATION_NAMES = ("mean", "center")
REWRITE_NAMES = (
    *("norms_to_affine", "affine_to_norms", "fold_out_bias", "add_out_bias"),
    *("scale_theta", "unscale_theta"),
)

EXAMPLES = """\
Examples:
  python tools/convert.py i3d_nonlocal_8x8_IN_pretrain_400k.pkl i3d_nl5.pt
  python tools/convert.py caffe2/i3d_nl5_8x8 i3d_nl5.pyth --to slowfast
  python tools/convert.py torchvision/resnet50 i3d.pt --experiment caffe2/i3d_8x8
  python tools/convert.py settings.json configs/experiment/mine.yaml --from slowfast

SRC is a path, a URL or a public name. Training and evaluation also read it, as weights=SRC.
The rewrites of --rewrite keep the output of a network:
  norms_to_affine, affine_to_norms  batch norms become fixed affine maps, and the reverse
  fold_out_bias, add_out_bias       W_z's bias moves into the norm after it; a bias of 0 is added
  scale_theta, unscale_theta        for blocks that scale their softmax, and that do not

Sections of settings.json, with the names of the code base: caffe2: MODEL and NONLOCAL; slowfast:
settings, frames (and crop_size); mmaction2: backbone and head; pytorchvideo: settings (and
crop_size); torchvision: depth.
"""


def parse_arguments(doc: str | None) -> argparse.Namespace:
    """Parse the words of the command line; `doc` is the first part of the help text."""
    parser = Parser(doc, EXAMPLES)
    names = ", ".join(FORMAT_NAMES)
    parser.add_argument(
        "source",
        metavar="SRC",
        help="a path, a URL or a public name; FILE#WORD: the tensors under WORD",
    )
    parser.add_argument("target", metavar="DST", type=Path, help="the file to write")
    parser.add_argument(
        "--from", dest="from_", metavar="NAME", help=f"{names}; recognized if absent"
    )
    parser.add_argument("--to", default="nlnet", metavar="NAME", help="one of the same names")
    parser.add_argument(
        "--experiment",
        metavar="NAME",
        help="the network that DST is for, a file of configs/experiment: kernels without time are "
        "inflated, norms and biases are rewritten, and every key is checked",
    )
    parser.add_argument(
        "--inflation", default="mean", metavar="RULE", help=" or ".join(INFLATION_NAMES)
    )
    parser.add_argument(
        "--rewrite",
        action="append",
        default=[],
        metavar="NAME",
        help=f"{', '.join(REWRITE_NAMES)}; may be repeated",
    )
    return parser.parse_args()
