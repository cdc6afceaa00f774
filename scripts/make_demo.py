"""Train the demonstration checkpoint, and write it and its example videos to nlnet/demo.

The training is `python tools/train.py +experiment=demo`. Its videos include 1,024 in which one
object or both are missing, each of them in both classes (make_same_different.py --incomplete). The
network therefore answers with even probabilities if it sees no evidence. Without these videos it
answers "same", and no deletion of evidence lowers the probability of "same".

The shipped file holds the last weights in half precision and the settings, without the state of the
optimizer. The examples are held-out videos, drawn with a seed of their own.

Examples:
  python scripts/make_demo.py
  python scripts/make_demo.py --trained outputs/demo/train/last.pt
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from nlnet.checkpoint import LAST, Checkpoint, read_checkpoint, write_checkpoint
from nlnet.cli.compose import compose_run
from nlnet.config import parse_run, run_text
from nlnet.demo import CHECKPOINT, DEMO, VIDEOS

ROOT = Path(__file__).parents[1]
INCOMPLETE = 2048  # files of training videos without evidence
EXAMPLES_SEED = 7_2018  # not the seed of the training data


def run(*words: str) -> None:
    """Run one of the project's own commands, shown as a user would type it."""
    print(f"\n$ python {' '.join(words)}", flush=True)
    code = subprocess.run([sys.executable, *words], cwd=ROOT).returncode
    if code != 0:
        sys.exit(code)


def write_demo(trained: Path, target: Path) -> None:
    """Write the weights of a checkpoint in half precision, without its training state."""
    checkpoint = read_checkpoint(trained)
    assert checkpoint.provenance.config is not None
    settings = parse_run(checkpoint.provenance.config, str(trained))
    # Settings of the machine are those of the experiment.
    data = replace(settings.data, root=compose_run(DEMO).data.root, num_workers=None)
    provenance = replace(checkpoint.provenance, config=run_text(replace(settings, data=data)))
    weights = {
        name: tensor.half() if tensor.dtype == torch.float32 else tensor
        for name, tensor in checkpoint.model.items()
    }
    write_checkpoint(target, Checkpoint(weights, provenance))
    print(f"{target}: {target.stat().st_size} bytes")


def write_examples() -> None:
    """Write one video of each class."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["--out", f"{folder}/videos", "--train", "2", "--val", "2", "--test", "2"]
        words += ["--workers", "1", "--seed", str(EXAMPLES_SEED)]
        run("scripts/make_same_different.py", *words)
        for target in VIDEOS:
            source = next(Path(folder, "videos", "test", target.stem).glob("*.mp4"))
            shutil.copy(source, target)
            print(f"{target}: {target.stat().st_size} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trained", type=Path, help="use this checkpoint instead of training")
    parser.add_argument("--out", type=Path, default=CHECKPOINT, help="(default %(default)s)")
    args = parser.parse_args()
    if args.trained is None:
        root = compose_run(DEMO).data.root
        run("scripts/make_same_different.py", "--out", root, "--incomplete", str(INCOMPLETE))
        run("tools/train.py", f"+experiment={DEMO}")
        args.trained = ROOT / "outputs" / DEMO / "train" / LAST
    write_demo(args.trained, args.out)
    write_examples()


if __name__ == "__main__":
    main()
