"""Every command of the documentation works as it is typed.

A command is a line of a bash block, or inline code that begins with a program. Each one is run with
overrides appended that make it small, or composed, or left to another check: TREATMENT says which,
and why. A command that is not in TREATMENT fails.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir

from nlnet.cli.choices import CONFIG_DIR
from nlnet.cli.compose import to_run
from nlnet.config import register_schemas
from nlnet.model.build import build_model
from tests.commands import run_python

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    path
    for folder in (".", "docs", "benchmarks", "configs")
    for path in (ROOT / folder).glob("*.md")
)
PROGRAMS = ("python", "bash", "torchrun", "nlnet", "pip", "tensorboard", "pre-commit", "ruff")
PROGRAMS += ("sphinx-build",)


def blocks(page: Path, language: str) -> Iterator[str]:
    """The text of the page's code blocks in a language, without their indentation."""
    pattern = rf"^( *)```{language}\n(.*?)^ *```$"
    for indent, text in re.findall(pattern, page.read_text(), re.MULTILINE | re.DOTALL):
        yield "".join(line.removeprefix(indent) for line in text.splitlines(keepends=True))


def commands(page: Path) -> Iterator[str]:
    """The commands of a page without comments, as a shell reads their words."""
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield shlex.join(words)
    prose = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`([^`\n]+)`", prose):
        first = next((word for word in code.split() if not re.match(r"[A-Z_]+=", word)), "")
        if first in PROGRAMS and " " in code:
            yield shlex.join(shlex.split(code))


COMMANDS = sorted({command for page in PAGES for command in commands(page)})


@dataclass(frozen=True)
class Run:
    """Run the command in a folder of small data, with more words appended."""

    more: tuple[str, ...] = ()
    slow: bool = True
    replace: tuple[tuple[str, str], ...] = ()  # words of the command and what is run instead
    first: tuple[str, ...] = ()  # commands that make what it reads


@dataclass(frozen=True)
class ComposeOnly:
    """Print the composed configuration; `why` the command is not run."""

    why: str


@dataclass(frozen=True)
class SuiteRuns:
    """A call of pytest: its files must exist, and its -k must select a test."""


@dataclass(frozen=True)
class RunElsewhere:
    """Another check runs the command, or it needs something that the tests do not have."""

    why: str


Treatment = Run | ComposeOnly | SuiteRuns | RunElsewhere

NETWORK = (
    "model.depth=14",
    "model.width=8",
    "model.non_local.res3=[0]",
    "model.non_local.res4=[0]",
)
TESTING = (
    "data.num_workers=0",
    "data.clip.num_frames=4",
    "data.clip.frame_stride=2",
    "data.clip.crop_size=32",
    "data.test_views.num_clips=1",
    "data.test_views.num_crops=1",
    "data.test_views.crop_size=32",
    "data.test_views.short_side=32",
    "dist.device=cpu",
)
SHORT = (
    "data.num_workers=0",
    "data.batch_size=4",
    "trainer.epochs=null",
    "trainer.max_steps=2",
    "schedule.warmup=0",
)
SMALL = (
    *NETWORK,
    *TESTING,
    *SHORT,
    "data.augment.short_side=[32,40]",
    "data.val_views.crop_size=32",
    "data.val_views.short_side=32",
)
EVALUATE = "python tools/eval.py weights=outputs/i3d_nl5/train/best.pt data.root=/data/kinetics400"
SWEEP = "python tools/train.py -m +experiment=c2d_nl1 +sweep=pairwise data.root=/data/kinetics400"
TWO_BLOCKS = ("block=gaussian,unary", "hydra.sweep.subdir='${hydra.job.num}'")  # of the 12
TWO_RANKS = (("dist.num_procs=8", "dist.num_procs=2"), ("8", "2"))
FIRST = "python tools/train.py +experiment=i3d_nl5 data.root=/data/kinetics400 dist.num_procs=8"

WALK = RunElsewhere("tests/docs/test_walk.py runs the commands of its page in their order")
DATA_WALK = RunElsewhere("tests/docs/test_data_walk.py goes from official files to a batch")
EXTEND = RunElsewhere("tests/docs/test_extend.py runs the examples")
PAPER = RunElsewhere("tests/test_configs.py composes it; the sweep of table 2a runs")

TABLE_RUNS = RunElsewhere("it takes up to an hour; tests/report/test_tables.py runs small ones")

PREPARE = "python tools/prepare.py folder --root my_videos"
SHARDS = f"{PREPARE} --shards 1GB"

TREATMENT: dict[str, Treatment] = {
    "python tools/benchmark.py bench=forms": RunElsewhere(
        "it needs a GPU; tests/bench/test_forms.py runs it with injected times"
    ),
    "python tools/train.py +experiment=folder non_local=nl5 model.width=128 +debug=profile"
    " data.root=my_videos data.batch_size=4 data.clip.crop_size=64 dist.num_procs=2"
    " dist.strategy=fsdp": RunElsewhere("tests/tools/test_debug.py profiles two ranks with it"),
    FIRST: Run(SMALL, replace=TWO_RANKS),
    "python tools/train.py +experiment=i3d_nl5 block=dot_product name=i3d_nl5_dot"
    " data.root=/data/kinetics400": Run(SMALL),
    "python tools/train.py +experiment=i3d_nl5 block=disentangled data.root=/data/kinetics400": Run(
        SMALL
    ),
    # The sweep has 12 blocks; two of them show that it works. The folder of a run has the appended
    # words in its name, which would be too long.
    SWEEP: Run((*SMALL, "block=gaussian,unary", "hydra.sweep.subdir=${hydra.job.num}")),
    "python tools/train.py +experiment=i3d_nl5 augmentation=modern trainer.label_smoothing=0.1"
    " data.root=PATH": Run(SMALL, replace=(("data.root=PATH", "data.root=kinetics400"),)),
    "python tools/inspect_data.py +experiment=folder augmentation=modern data.root=my_videos"
    " clips=6": Run(("data.batch_size=6",)),
    "python tools/train.py --help": Run(slow=False),
    f"{FIRST} dist.max_restarts=3": RunElsewhere("tests/tools/test_restarts.py"),
    "torchrun --nnodes 2 --nproc-per-node 8 --max-restarts 3 --rdzv-backend c10d --rdzv-endpoint"
    " node0:29400 --rdzv-id i3d_nl5 tools/train.py +experiment=i3d_nl5"
    " data.root=/data/kinetics400": RunElsewhere("scripts/kill_ranks.py runs two agents"),
    "sbatch --nodes=2 --gpus-per-node=8 scripts/slurm_train.sh +experiment=i3d_nl5"
    " data.root=/data/kinetics400": RunElsewhere("tests/scripts/test_slurm_train.py"),
    "export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1": RunElsewhere("scripts/kill_ranks.py sets it"),
    "python scripts/quickstart_nodes.py": RunElsewhere(
        "it takes minutes; tests/scripts/test_quickstart_nodes.py trains five steps"
    ),
    "python tests/fixtures/golden_losses/make.py --device cuda": RunElsewhere(
        "it needs a GPU; tests/trainer/test_golden_losses.py computes the curves of a CPU"
    ),
    "python scripts/kill_ranks.py --kills 20": RunElsewhere("tests/scripts/test_kill_ranks.py"),
    "pip install 'nlnet[slurm]'": RunElsewhere("it needs the network"),
    "python tools/runs.py": RunElsewhere("tests/jobs/test_runs.py"),
    "python tools/runs.py outputs --where optim.lr=0.1 --where model.depth=50"
    " --csv runs.csv": RunElsewhere("the same"),
    "python tools/runs.py --diff outputs/c2d_nl5/train outputs/i3d_nl5/train": RunElsewhere(
        "the same"
    ),
    "python tools/runs.py outputs/i3d_nl5/train": RunElsewhere("the same"),
    "python tools/runs.py --watch": RunElsewhere("the same"),
    "python tools/train.py -m +experiment=c2d_nl1 +sweep=stage data.root=/data/kinetics400"
    " hydra/launcher=joblib hydra.launcher.n_jobs=2": RunElsewhere(
        "tests/tools/test_parallel_sweep.py"
    ),
    "python tools/train.py -m +experiment=folder_small data.root=my_videos hydra/sweeper=optuna"
    " hydra.sweeper.direction=maximize hydra.sweeper.n_trials=20 hydra.sweeper.n_jobs=1"
    " 'optim.lr=tag(log,interval(0.001,0.1))'": RunElsewhere("tests/tools/test_optuna_sweep.py"),
    "python tools/replay.py outputs/i3d_nl5/train 1200 --picture step.png"
    " --save step.pt": RunElsewhere("tests/tools/test_replay.py"),
    "torchrun --nproc-per-node 8 tools/train.py +experiment=i3d_nl5"
    " data.root=/data/kinetics400": Run(SMALL, replace=TWO_RANKS),
    "python tools/train.py +experiment=folder_small data.root=my_videos": Run(SHORT, slow=False),
    "python tools/train.py +experiment=folder data.root=my_videos"
    " weights=torchvision/ResNet50_Weights.IMAGENET1K_V2": ComposeOnly("it downloads weights"),
    "python tools/train.py +experiment=folder non_local=nl5 data.root=my_videos"
    " weights=outputs/i3d_nl5/train/best.pt": Run(SMALL),
    "python tools/train.py +experiment=folder data.root=my_videos"
    " 'weights=downloaded.pth#model_ema'": ComposeOnly("tests/weights/test_envelope.py reads one"),
    "python tools/train.py +experiment=gestures data.root=my_videos": Run(SHORT),
    "python tools/train.py +experiment=folder data.root=my_lists data.train=train.csv"
    " data.val=val.csv data.videos=clips": Run(SMALL, slow=False),
    EVALUATE: Run(slow=False),
    "python tools/eval.py weights=caffe2/i3d_nl5_8x8 data.root=/data/kinetics400": Run(
        (*NETWORK, *TESTING, "model.head_window=null")
    ),
    "python tools/train.py +experiment=folder non_local=nl5 model.normalization=kinetics"
    " data.root=my_videos weights=slowfast/i3d_nl5_8x8": Run(SMALL),
    "python tools/predict.py demo": Run(slow=False),
    "python tools/predict.py outputs/i3d_nl5/train/best.pt my_videos --json predictions.json": Run(
        slow=False
    ),
    "python tools/predict.py outputs/i3d_nl5/train/best.pt video.mp4 --over-time --window 2"
    " --step 1": Run(),
    "python tools/predict.py outputs/i3d_nl5/train/best.pt my_videos"
    " --features features.npz": Run(),
    "python tools/attend.py demo": Run(slow=False),
    "python tools/attend.py outputs/i3d_nl5/train/best.pt video.mp4": Run(),
    "python tools/report.py outputs/i3d_nl5": Run(first=(EVALUATE,)),
    "python tools/report.py outputs/c2d outputs/c2d_nl5 --out comparison.html": Run(
        first=(f"{EVALUATE} name=c2d", f"{EVALUATE} name=c2d_nl5")
    ),
    "python tools/tables.py outputs/c2d_nl1/sweep_pairwise --paper 2a": Run(
        first=(" ".join((SWEEP, *SMALL, *TWO_BLOCKS)),)
    ),
    "python tools/attend.py outputs/i3d_nl5/train/best.pt video.mp4 --block res4.nl3"
    " --query 4,112,112 --score": Run(replace=(("res4.nl3", "res4.nl0"), ("4,112,112", "1,16,16"))),
    "python tools/attend.py outputs/i3d/train/best.pt video.mp4 --method gradcam": Run(
        replace=(("outputs/i3d/train/best.pt", "outputs/i3d_nl5/train/best.pt"),)
    ),
    "pip install 'nlnet[sweep]'": RunElsewhere("the development environment has the extra"),
    "pip install 'nlnet[serve]'": RunElsewhere("the development environment has the extra"),
    "python tools/serve.py demo": RunElsewhere("tests/serve runs it; it ends with Ctrl-C"),
    "python tools/serve.py outputs/i3d_nl5/train/best.pt": RunElsewhere("the same"),
    "python tools/serve.py outputs/i3d_nl5/train/best.pt --port 8001"
    " --max-seconds 120": RunElsewhere("the same"),
    "python scripts/compare_readers.py 'clips/*.mp4'": RunElsewhere(
        "tests/scripts/test_compare_readers.py"
    ),
    "python scripts/segment_far.py --seeds 0 1 2": RunElsewhere(
        "tests/scripts/test_segment_far.py"
    ),
    "python scripts/score_attention.py": RunElsewhere("tests/scripts/test_score_attention.py"),
    "python tools/export.py outputs/i3d_nl5/train/best.pt --to onnx": Run(),
    "python tools/export.py outputs/i3d_nl5/train/best.pt --to torch_export": Run(),
    "python tools/export.py outputs/i3d_nl5/train/best.pt --to safetensors --out i3d_nl5": Run(),
    "python tools/convert.py SRC.pkl DST.pyth --to slowfast": Run(),
    "python tools/convert.py SETTINGS.json NAME.yaml --from slowfast": Run(),
    "python tools/convert.py --help": Run(slow=False),
    "python tools/describe.py +experiment=i3d_nl5": Run(slow=False),
    "python tools/train.py +experiment=i3d_nl5 +debug=short data.root=/data/kinetics400": Run(
        SMALL
    ),
    "python tools/train.py +experiment=i3d_nl5 +debug=overfit data.root=/data/kinetics400": Run(
        (*SMALL, "trainer.max_steps=100")
    ),
    "python tools/train.py +experiment=i3d_nl5 +debug=profile data.root=/data/kinetics400": Run(
        SMALL
    ),
    "python tools/doctor.py": Run(slow=False),
    PREPARE: Run(slow=False),
    f"{PREPARE} --resize 256 --gop 16 --to my_videos_256": Run(slow=False),
    "python tools/prepare.py check my_videos/manifest.parquet": Run(slow=False, first=(PREPARE,)),
    "python tools/train.py +experiment=folder_small data.root=my_videos"
    " 'data.train=manifest.parquet#train' 'data.val=manifest.parquet#val'": Run(
        SHORT, first=(PREPARE,)
    ),
    SHARDS: Run(slow=False),
    "python tools/prepare.py check my_videos/manifest.shards/manifest.parquet": Run(
        slow=False, first=(SHARDS,)
    ),
    "python tools/train.py +experiment=folder_small data.root=my_videos/manifest.shards"
    " 'data.train=manifest.parquet#train' 'data.val=manifest.parquet#val'": Run(
        SHORT, first=(SHARDS,)
    ),
    "python tools/train.py +experiment=folder_small data.root=my_videos/manifest.shards"
    " data.videos=s3://bucket/my_videos 'data.train=manifest.parquet#train'"
    " 'data.val=manifest.parquet#val'": ComposeOnly(
        "it needs an object store; tests/data/shards/test_remote.py reads from a server"
    ),
    "pip install 'nlnet[parquet]'": RunElsewhere("the development environment has the extra"),
    "pip install 'nlnet[remote]'": RunElsewhere("the same"),
    **{
        f"python tools/prepare.py {name} --root /data/{name}{more}": DATA_WALK
        for name, more in {
            **dict.fromkeys(("kinetics400", "ssv2", "ucf101", "jhmdb"), ""),
            **dict.fromkeys(("charades", "diving48", "jester"), ""),
            "hmdb51": " --split-number 2 --out /data/hmdb51/split2.parquet",
        }.items()
    },
    "python tools/prepare.py list --root my_lists": DATA_WALK,
    **{
        f"python tools/inspect_data.py +experiment={words} 'data.train={manifest}#train'": DATA_WALK
        for words, manifest in {
            "folder data.root=my_lists": "manifest.parquet",
            "i3d_nl5 data.root=/data/kinetics400": "manifest.parquet",
            "folder data.augment.flip=false data.root=/data/ssv2": "manifest.parquet",
            "folder data.root=/data/ucf101": "manifest.parquet",
            "folder data.root=/data/hmdb51": "split2.parquet",
            "folder data.root=/data/jhmdb": "manifest.parquet",
            "charades data.root=/data/charades data.videos=.": "manifest.parquet",
            "folder data.root=/data/diving48": "manifest.parquet",
            "gestures data.root=/data/jester": "manifest.parquet",
        }.items()
    },
    "OMP_NUM_THREADS=2 python tools/benchmark.py bench=ops json=ops.json": ComposeOnly(
        "it takes 23 minutes; tests/bench measures small shapes with the same code"
    ),
    "OMP_NUM_THREADS=2 python tools/benchmark.py bench=ops quick=true": ComposeOnly(
        "it takes minutes; tests/bench measures small shapes with the same code"
    ),
    "OMP_NUM_THREADS=2 python tools/benchmark.py bench=step +experiment=i3d_nl5": ComposeOnly(
        "it takes 9 minutes; tests/bench measures small clips with the same code"
    ),
    "OMP_NUM_THREADS=2 python tools/benchmark.py bench=data": ComposeOnly(
        "it takes minutes; tests/bench measures short videos with the same code"
    ),
    "python tools/benchmark.py bench=gpu": ComposeOnly(
        "it needs a GPU; tests/bench measures tiny networks with the same code"
    ),
    "python tools/benchmark.py bench=gpu 'only=[i3d_nl5,blocks]'": RunElsewhere(
        "it needs a GPU; tests/bench measures tiny networks with the same code"
    ),
    "python tools/benchmark.py bench=gpu quick=true dist.device=cpu": ComposeOnly(
        "it takes half a minute; tests/bench measures a network of it with the same code"
    ),
    "python tools/train.py +experiment=gestures data.root=gestures": Run(SHORT),
    "python tools/train.py +experiment=gestures data.root=gestures model=c2d_tiny"
    " name=gestures_c2d": Run(SHORT),
    "python tools/train.py +experiment=gestures data.root=jhmdb name=jhmdb data.augment.flip=true"
    " trainer.epochs=20 optim.lr=1e-3 optim.weight_decay=0.2": Run(SHORT),
    "python -m pytest tests/data/test_clip_sampling.py tests/data/test_transforms.py": SuiteRuns(),
    "python -m pytest tests/test_presets.py": SuiteRuns(),
    "python -m pytest tests/test_published_counts.py": SuiteRuns(),
    "python -m pytest tests/weights/test_parity.py -k committed": SuiteRuns(),
    "python -m pytest -m slow tests/weights/test_block_presets.py": SuiteRuns(),
    "NLNET_BLOCKS=FOLDER python -m pytest tests/weights/test_blocks.py": SuiteRuns(),
    "python -m pytest tests/weights/test_sources.py tests/model/test_pytorchvideo.py": SuiteRuns(),
    "python -m pytest tests/weights/test_rewrite.py tests/weights/test_files.py"
    " tests/tools/test_convert.py": SuiteRuns(),
    "NLNET_PARITY=FOLDER python -m pytest tests/weights/test_parity.py": SuiteRuns(),
    "NLNET_PARITY=FOLDER python -m pytest tests/weights/test_parity.py -o junit_family=xunit1"
    " --junitxml=parity.xml": SuiteRuns(),
    "bash scripts/quickstart.sh": RunElsewhere("it takes minutes; a release is checked with it"),
    "bash scripts/quickstart.sh --seed 1": RunElsewhere("the same with another seed"),
    "bash scripts/test.sh": RunElsewhere(".ci/run runs it; it runs this test"),
    "bash scripts/test.sh -m slow": RunElsewhere(".ci/run runs it; it runs this test"),
    "nlnet --help": RunElsewhere("the test of the wheel runs it"),
    "nlnet train": RunElsewhere("the test of the wheel trains with it"),
    "python tools/train.py": RunElsewhere("it is a part of other commands of the pages"),
    "torchrun --max-restarts R": RunElsewhere("it is a part of other commands of the page"),
    "nlnet VERB": RunElsewhere("it describes the form of a command"),
    "python tools/VERB.py": RunElsewhere("it describes the form of a command"),
    "pip install .": RunElsewhere("the test of the wheel installs the package"),
    "pre-commit install": RunElsewhere("it changes the user's repository"),
    "ruff check": RunElsewhere(".ci/run runs it"),
    "ruff format --check": RunElsewhere(".ci/run runs it"),
    "tensorboard --logdir outputs": RunElsewhere("it starts a server"),
    "python -m venv .venv": RunElsewhere("the test of the wheel makes an environment"),
    ". .venv/bin/activate": RunElsewhere("it changes the user's shell"),
    "pip install '.[docs]'": RunElsewhere("the development environment has the extra"),
    "pip install 'nlnet[torchcodec]'": RunElsewhere("tests/data/decoding"),
    "pip install '.[report]'": RunElsewhere("the test of the wheel installs the package"),
    "nlnet doctor": RunElsewhere("it is python tools/doctor.py"),
    "nlnet predict demo": RunElsewhere("it is python tools/predict.py demo"),
    "nlnet attend demo": RunElsewhere("it is python tools/attend.py demo"),
    "python scripts/make_same_different.py": RunElsewhere("tests/scripts"),
    "sphinx-build -W --keep-going -b html docs docs/_build/html": RunElsewhere("tests/docs"),
    "python tools/train.py +experiment=quickstart name=my_first": WALK,
    "python tools/eval.py weights=outputs/my_first/train/best.pt": WALK,
    "python tools/report.py outputs/my_first": WALK,
    "python tools/train.py +experiment=folder_small +debug=short data.root=my_videos": WALK,
    "python tools/train.py +experiment=folder_small +debug=overfit data.root=my_videos": WALK,
    "python tools/train.py +experiment=folder_small non_local=nl2_tiny name=folder_small_nl"
    " data.root=my_videos": WALK,
    "python tools/eval.py weights=outputs/folder_small_nl/train/best.pt data.root=my_videos": WALK,
    "python tools/attend.py outputs/folder_small_nl/train/best.pt video.mp4": WALK,
    "python tools/eval.py weights=outputs/folder_small/train/best.pt data.root=my_videos": WALK,
    "python tools/report.py outputs/folder_small": WALK,
    "python tools/predict.py outputs/folder_small/train/best.pt my_videos/val": WALK,
    "python tools/predict.py outputs/folder_small/train/best.pt video.mp4 --over-time": WALK,
    "python tools/attend.py outputs/folder_small/train/best.pt video.mp4 --method gradcam": WALK,
    "python tools/train.py +experiment=i3d --cfg job": Run(slow=False),
    "python tools/train.py -m +experiment=c2d_nl1 +sweep=stage data.root=/data/kinetics400": PAPER,
    "python tools/train.py -m +experiment=c2d +sweep=blocks data.root=/data/kinetics400": PAPER,
    "python tools/train.py -m +experiment=c2d_nl5 +sweep=axes data.root=/data/kinetics400": PAPER,
    "python tools/train.py -m +experiment=c2d_r101 +sweep=versus_3d"
    " data.root=/data/kinetics400": PAPER,
    "python tools/train.py -m +experiment=c2d_32x2 +sweep=non_local_3d"
    " data.root=/data/kinetics400": PAPER,
    "python tools/train.py -m +experiment=i3d_nl5_128x1 +sweep=long_clips"
    " data.root=/data/kinetics400": PAPER,
    "python tools/train.py -m +experiment=quickstart +sweep=pairwise": PAPER,
    "python tools/train.py -m +experiment=tables +sweep=blocks"
    " non_local=none,nl1_tiny,nl2_tiny,nl4_tiny seed=0,1,2": TABLE_RUNS,
    "python tools/train.py -m +experiment=tables +sweep=pairwise"
    " block=gaussian,dot_product,concatenation seed=0,1,2": TABLE_RUNS,
    "python tools/train.py -m +experiment=tables +sweep=stage"
    " non_local=nl1_tiny_res2,nl1_tiny_res3,nl1_tiny_res5 seed=0,1,2": TABLE_RUNS,
    "python tools/train.py -m +experiment=tables +sweep=axes non_local=nl2_tiny"
    " model.non_local.axes=space,time seed=0,1,2": TABLE_RUNS,
    "python tools/tables.py outputs/tables/sweep_blocks --paper 2c": TABLE_RUNS,
    **{
        f"python tools/tables.py outputs/tables/sweep_{sweep} {shared} --paper {table}": TABLE_RUNS
        for sweep, shared, table in (
            ("pairwise", "'outputs/tables/sweep_blocks/non_local={none,nl1_tiny},seed=*'", "2a"),
            ("stage", "'outputs/tables/sweep_blocks/non_local={none,nl1_tiny},seed=*'", "2b"),
            ("axes", "'outputs/tables/sweep_blocks/non_local={none,nl2_tiny},seed=*'", "2d"),
        )
    },
    "python scripts/make_demo.py": RunElsewhere("it takes minutes; tests/recognizer/test_demo.py"),
    "python docs/make_pictures.py": RunElsewhere("tests/docs/test_pictures.py makes the pictures"),
    "python -m pytest tests/model/non_local/test_block.py -k 'mean and equation'": EXTEND,
    "python tools/train.py +experiment=folder_small block=mean 'model.non_local.res4=[0]'"
    " data.root=my_videos": EXTEND,
    "python tools/describe.py +experiment=folder_small model=plain data.root=my_videos": EXTEND,
    "python tools/train.py +experiment=folder_small model=plain 'model.non_local.res3=[0]'"
    " data.root=my_videos name=plain": EXTEND,
    "python tools/eval.py weights=outputs/plain/train/best.pt data.root=my_videos": EXTEND,
    "python tools/train.py +experiment=folder_small data=my_set name=json": EXTEND,
}


def shell_words(command: str) -> tuple[dict[str, str], list[str]]:
    """The environment variables and the words of a command."""
    words = shlex.split(command)
    count = next(i for i, word in enumerate(words) if not re.match(r"[A-Z_]+=", word))
    return dict(word.split("=", 1) for word in words[:count]), words[count:]


def run(command: str, cwd: Path, *more: str) -> str:
    """Run a command of a page in `cwd`, and return what it prints."""
    variables, words = shell_words(command)
    words = [word.replace("data.root=/data/", "data.root=") for word in words]
    words = [str(ROOT / word) if word.startswith("tools/") else word for word in words]
    environment = {**os.environ, **variables, "OMP_NUM_THREADS": "1"}
    if words[0] == "python":
        done = run_python([*words[1:], *more], cwd, env=environment, timeout=300)
    else:
        assert words[0] == "torchrun"
        done = subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", *words[1:], *more],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders that the pages name, with 8 videos for each split."""
    root = tmp_path_factory.mktemp("documentation")
    make_videos(root / "my_videos")
    for name in ("gestures", "jhmdb"):
        (root / name).symlink_to("my_videos")
    kinetics(root / "my_videos", root / "my_lists", clips="clips", val="val.csv")
    kinetics(root / "my_videos", root / "kinetics400", clips="clips", val="validate.csv")
    shutil.copy(next((root / "my_videos" / "val" / "same").iterdir()), root / "video.mp4")
    settings = {"settings": {"arch": "i3d", "depth": 50}, "frames": 8}
    (root / "SETTINGS.json").write_text(json.dumps(settings))
    return root


def make_videos(folder: Path) -> None:
    """A small data set of class folders: 8 videos to train on, 8 to validate on, 2 to test."""
    script = [str(ROOT / "scripts" / "make_same_different.py"), "--out", str(folder)]
    sizes = ["--train", "8", "--val", "8", "--test", "2", "--workers", "1"]
    done = run_python([*script, *sizes], ROOT)
    assert done.returncode == 0, done.stderr


def kinetics(videos: Path, root: Path, *, clips: str, val: str) -> None:
    """Write the videos again as Kinetics does: {id}_{start}_{end}.mp4 and CSV files."""
    (root / clips).mkdir(parents=True)
    for split, name in (("train", "train.csv"), ("val", val)):
        rows = ["label,youtube_id,time_start,time_end,split"]
        for i, video in enumerate(sorted((videos / split).glob("*/*.mp4"))):
            rows.append(f"{video.parent.name},{split}{i:03},0,10,{split}")
            shutil.copy(video, root / clips / f"{split}{i:03}_000000_000010.mp4")
        (root / name).write_text("\n".join(rows) + "\n")


@pytest.fixture(scope="module")
def trained(data: Path) -> Path:
    """The folders after the first training command of the README, in one process."""
    run(FIRST, data, *SMALL, "dist.num_procs=1")
    return data


@pytest.fixture(scope="module")
def published(trained: Path) -> Path:
    """The folders with small files in place of those that public names would download."""
    best = "outputs/i3d_nl5/train/best.pt"
    run(f"python tools/convert.py {best} SRC.pkl --to caffe2", trained)
    for name, target in (("SRC.pkl", "caffe2"), (best, "slowfast")):
        (trained / target).mkdir()
        run(f"python tools/convert.py {name} small.file --to {target}", trained)
        (trained / "small.file").rename(trained / target / "i3d_nl5_8x8")
    return trained


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder of its own for a command, with the folders and files that it reads."""
    command = request.node.callspec.params["command"]
    names = ("caffe2/", "slowfast/", "SRC.pkl")
    if any(name in command for name in names):
        source = request.getfixturevalue("published")
    elif "outputs/" in command:
        source = request.getfixturevalue("trained")
    else:
        source = request.getfixturevalue("data")
    for path in source.iterdir():
        if path.name != "outputs":
            (tmp_path / path.name).symlink_to(path)
    if (source / "outputs").exists() and "outputs/" in command:
        shutil.copytree(source / "outputs", tmp_path / "outputs")
    return tmp_path


def chosen(kind: type) -> list[object]:
    """The commands of a treatment as parameters of a test."""
    return [
        pytest.param(
            command,
            id=command,
            marks=[pytest.mark.slow] if isinstance(treatment, Run) and treatment.slow else [],
        )
        for command, treatment in TREATMENT.items()
        if isinstance(treatment, kind)
    ]


def test_every_command_of_the_pages_is_known_and_no_other():
    assert len(PAGES) >= 8
    assert set(COMMANDS) == set(TREATMENT)


@pytest.mark.parametrize("command", chosen(Run))
def test_the_command_runs(command: str, folder: Path):
    treatment = TREATMENT[command]
    assert isinstance(treatment, Run)
    replace = dict(treatment.replace)
    words = [replace.get(word, word) for word in shlex.split(command)]
    for earlier in treatment.first:
        run(earlier, folder)
    before = {path.name for path in folder.iterdir()}
    said = run(shlex.join(words), folder, *treatment.more)
    if "--help" in words:
        assert "python tools/" in said
    elif "--cfg" in words:
        assert said.startswith("name: i3d\n")
    elif "+debug=profile" in words:
        assert list(folder.glob("outputs/*/train/tensorboard/*.pt.trace.json.gz"))
    elif "tools/train.py" in words:
        assert list(folder.glob("outputs/*/*/**/last.pt"))
    elif "tools/eval.py" in words:
        assert list(folder.glob("outputs/**/eval/predictions.csv"))
    elif "--features" in words:
        assert (folder / "features.npz").exists()
    elif "tools/predict.py" in words:
        assert " %  same\n" in said
    elif "tools/attend.py" in words:
        assert list(folder.glob("outputs/attend/*/attention.png"))
    elif "tools/export.py" in words:
        assert "largest difference" in said or (folder / "i3d_nl5" / "README.md").exists()
    elif "tools/convert.py" in words:
        assert {path.name for path in folder.iterdir()} > before
    elif "tools/inspect_data.py" in words:
        assert (folder / "outputs" / "folder" / "inspect_data" / "clips.png").exists()
    elif "tools/report.py" in words:
        assert "<html" in next(path for path in folder.rglob("*.html")).read_text()
    elif "tools/tables.py" in words:
        assert "Table 2a" in said
    elif "tools/prepare.py" in words:
        ends = ("videos can be used", "no row to test again", "videos are as they were written")
        assert any(end in said for end in ends)
    elif "tools/doctor.py" in words:
        assert said.startswith("nlnet doctor: everything that is needed works")
    else:
        assert "35,401,936" in said  # parameters of i3d_nl5


@pytest.mark.parametrize("command", chosen(ComposeOnly))
def test_the_command_composes(command: str, folder: Path):
    said = run(command, folder, "--cfg", "job")
    for word in shell_words(command)[1][2:]:
        key, _, value = word.rpartition("=")
        if "." not in key and not key.startswith("+"):
            assert re.search(rf"^{key}: {re.escape(value)}$", said, re.MULTILINE), word


@pytest.mark.parametrize("command", chosen(SuiteRuns))
def test_the_files_and_the_selection_of_pytest_exist(command: str):
    words = shell_words(command)[1]
    files = [ROOT / word for word in words if word.startswith("tests/")]
    assert files and all(file.is_file() for file in files)
    if "-k" in words:
        selection = words[words.index("-k") + 1]
        assert any(re.search(rf"def test_\w*{selection}", file.read_text()) for file in files)


def test_the_python_of_the_readme_runs(trained: Path):
    (code,) = blocks(ROOT / "README.md", "python")
    shape = "\nprint(len(recognizer.class_names), recognizer.scores('video.mp4').shape)"
    done = subprocess.run(
        [sys.executable, "-c", code + shape], cwd=trained, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2", "torch.Size([2])"]


def test_the_words_of_the_table_compose():
    """Each cell of configs/README.md that is typed, after an experiment unless it names one."""
    page = (ROOT / "configs" / "README.md").read_text()
    cells = re.findall(r"^\| (`[^|]*`) \|", page.split("| group |")[0], re.MULTILINE)
    rows = [shlex.split(" ".join(re.findall(r"`([^`]+)`", cell))) for cell in cells]
    assert len(rows) >= 7
    register_schemas()
    for row in rows:
        if row[0].startswith("--"):  # --help and --cfg job
            continue
        words = [word for word in row if word != "-m"]
        words = [word if "[" in word else word.split(",")[0] for word in words]
        if not any(word.startswith("+experiment=") for word in words):
            words.insert(0, "+experiment=i3d")
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            run = to_run(compose("run", overrides=["data.root=videos", *words]))
        with torch.device("meta"):
            build_model(run.model, num_classes=400)


def test_paths_and_names_are_read_as_they_are_typed(tmp_path: Path):
    """The words of the sentence in configs/README.md, in one command."""
    page = (ROOT / "configs" / "README.md").read_text()
    sentence = page.split("Paths and names are read as you type them:")[1].split("\n\n")[0]
    words = re.findall(r"`([^`]+)`", sentence)
    assert len(words) >= 3
    said = run("python tools/train.py +experiment=folder", tmp_path, *words, "--cfg", "job")
    values = yaml.safe_load(said)
    for word in words:
        key, _, value = word.partition("=")
        found = values
        for part in key.split("."):
            found = found[part]
        assert found in (value, os.path.expanduser(value)), word


def test_the_worked_example_works_as_it_is_on_the_page(data: Path, tmp_path: Path):
    """Apply the code of CONTRIBUTING.md to a copy of the package; then build, train and compare."""
    for name in ("nlnet", "configs", "tools", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    page = ROOT / "CONTRIBUTING.md"
    importing, code, line, oracle = blocks(page, "python")
    (config,) = blocks(page, "yaml")
    pairwise = tmp_path / "nlnet" / "model" / "non_local" / "pairwise.py"
    insert(pairwise, importing, before="from torch import")
    insert(pairwise, code + "\n\n", before="PAIRWISE: ")
    insert(pairwise, indented(line, 4), after="PAIRWISE: ")
    reference = tmp_path / "tests" / "model" / "non_local" / "reference_block.py"
    insert(reference, indented(oracle, 4), after=") -> Tensor:", start="def pairwise_sum(")
    (tmp_path / "configs" / "block" / "cosine.yaml").write_text(config)
    sweep = tmp_path / "configs" / "sweep" / "pairwise.yaml"
    sweep.write_text(sweep.read_text().replace("whitened,", "whitened,cosine,"))

    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    equation = "test_a_block_equals_its_equation or test_every_member_has_a_config"
    test = [
        *("-m", "pytest", "tests/model/non_local/test_block.py"),
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        f"({equation}) and (cosine or config)",
    ]
    train = [*shlex.split("tools/train.py +experiment=folder data.root=my_videos"), *SMALL]
    (tmp_path / "my_videos").symlink_to(data / "my_videos")
    for words in (test, [*train, "model.non_local.pairwise=cosine"]):
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert (tmp_path / "outputs" / "folder" / "train" / "last.pt").is_file()


def insert(path: Path, text: str, *, before: str = "", after: str = "", start: str = "") -> None:
    """Insert text at the first line that begins with `before` or `after`, from `start` on."""
    lines = path.read_text().splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if line.startswith(start))
    mark = before or after
    k = next(i for i, line in enumerate(lines) if i >= first and line.startswith(mark))
    lines.insert(k + bool(after), text)
    path.write_text("".join(lines))


def indented(code: str, spaces: int) -> str:
    return "".join(" " * spaces + line for line in code.splitlines(keepends=True))
