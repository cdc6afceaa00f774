"""Export a trained network for other programs.

onnx and torch_export: one file with the computation. It takes clips as uint8 RGB pixels, (batch, 3,
frames, height, width) as the network is tested on, normalizes them itself, and returns two outputs
of (batch, classes): probabilities, and logits. The file is compared with the network on three
inputs, and is not written if it differs. Its entry config.json describes classes and clips.

safetensors: a folder for a model hub, with model.safetensors, config.json (it contains the whole
configuration of the run, with its paths) and README.md (a model card). nlnet.load reads it.
"""

from pathlib import Path

from nlnet.cli.arguments import Parser
from nlnet.cli.tool import run_parser

EXAMPLES = """\
Examples:
  python tools/export.py outputs/i3d_nl5/train/best.pt --to onnx
  python tools/export.py outputs/i3d_nl5/train/best.pt --to safetensors --out i3d_nl5
  python tools/export.py demo --to torch_export --out demo.pt2
onnx needs pip install 'nlnet[export]'.
"""


def main() -> None:
    parser = Parser(__doc__, EXAMPLES)
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="a file, a folder, a URL, a public name, or demo")
    add("--to", metavar="FORMAT", required=True, help="onnx, torch_export or safetensors")
    add("--out", metavar="PATH", type=Path, help="default: beside the checkpoint")
    add("--experiment", metavar="NAME", help="its settings, if the file has none")
    add("--license", metavar="NAME", help="of the weights, for the model card: mit, cc-by-4.0, ...")
    words = parser.parse_args()
    from nlnet.jobs.export import export

    export(
        words.checkpoint,
        words.to,
        out=words.out,
        experiment=words.experiment,
        license=words.license,
    )


if __name__ == "__main__":
    run_parser(main)
