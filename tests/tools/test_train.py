"""tools/train.py as a command: its words, its folder, interruptions and resumption."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml

from nlnet.cli.choices import CONFIG_DIR
from nlnet.model.non_local.build import BLOCKS
from nlnet.model.non_local.pairwise import PAIRWISE
from tests.tools.running import ENVIRONMENT, start, wait_for

ROOT = Path(__file__).parents[2]
Tool = Callable[..., subprocess.CompletedProcess[str]]
Command = Callable[..., list[str]]


def saved(folder: Path, name: str = "last.pt") -> dict:
    return torch.load(folder / name, weights_only=True)


def assert_equal(one: Path, other: Path) -> None:
    """Bit for bit: weights, momentum, and progress except for times."""
    a, b = saved(one), saved(other)
    assert list(a["model"]) == list(b["model"])
    for name, value in a["model"].items():
        assert torch.equal(value, b["model"][name]), name
    torch.testing.assert_close(a["optimizer"]["state"], b["optimizer"]["state"], rtol=0, atol=0)
    assert a["progress"]["global_step"] == b["progress"]["global_step"]
    for x, y in zip(a["progress"]["history"], b["progress"]["history"], strict=True):
        assert (x["train"], x["val"]) == (y["train"], y["val"])


def test_a_run_writes_its_files(trained: Path, few_videos: Path):
    names = {path.name for path in trained.iterdir()}
    assert {"config.yaml", "last.pt", "best.pt", "metrics.json", "log.txt", "tensorboard"} <= names
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["best_top1"] == max(record["val"]["top1"] for record in metrics["epochs"])
    assert metrics["best_top1"] >= 50.0  # in percent; one of two balanced classes gives 50
    assert len(metrics["epochs"]) == 2
    said = (trained.parents[2] / "said.txt").read_text().splitlines()
    log = (trained / "log.txt").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in log] == said
    assert "24 videos of 2 classes to train on, 8 to validate on; 6 steps of 8 clips" in said[1]
    shown = rf"best epoch \d: top1 {metrics['best_top1']:.2f}%.*outputs/smoke/train/best.pt"
    assert re.search(shown, said[-1])
    checkpoint = saved(trained)
    assert set(checkpoint) == {
        "model",
        "optimizer_name",
        "optimizer",
        "scaler",
        "progress",
        "data",
        "provenance",
    }
    assert all(name.startswith(("backbone.", "head.")) for name in checkpoint["model"])
    assert checkpoint["provenance"]["class_names"] == ["different", "same"]
    assert checkpoint["provenance"]["config"] == (trained / "config.yaml").read_text()
    assert yaml.safe_load(checkpoint["provenance"]["config"])["data"]["root"] == str(few_videos)


def test_a_finished_run_is_not_trained_again(trained: Path, tool: Tool, tmp_path: Path):
    shutil.copytree(trained, tmp_path / "outputs" / "smoke" / "train")
    (tmp_path / "outputs" / "smoke" / "train" / "metrics.json").unlink()
    done = tool("train", "trainer.save_every_steps=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resumes from last.pt, after 6 steps" in done.stdout
    assert_equal(tmp_path / "outputs" / "smoke" / "train", trained)
    again = json.loads((tmp_path / "outputs" / "smoke" / "train" / "metrics.json").read_text())
    assert again == json.loads((trained / "metrics.json").read_text())


@pytest.mark.slow
def test_another_configuration_is_refused_with_its_differences(
    trained: Path, tool: Tool, tmp_path: Path
):
    shutil.copytree(trained, tmp_path / "outputs" / "smoke" / "train")
    done = tool("train", "optim.lr=0.5", "trainer.save_every_steps=1", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert re.search(r"^error: .*\(optim\.lr [\d.]+ -> 0\.5\)", done.stderr)


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(
    trained: Path, command: Command, tool: Tool, tmp_path: Path
):
    folder = tmp_path / "outputs" / "smoke" / "train"
    with start(command("train", "trainer.save_every_steps=1"), tmp_path) as process:
        wait_for(folder / "last.pt", process)
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert 0 < saved(folder)["progress"]["global_step"] < 6
    done = tool("train", "trainer.save_every_steps=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"resumes from last.*\.pt, after [1-5] steps", done.stdout)
    assert_equal(folder, trained)


@pytest.mark.slow
def test_sigterm_saves_and_the_same_command_resumes(
    trained: Path, command: Command, tool: Tool, tmp_path: Path
):
    """The launcher of two ranks passes the signal on; exit code 143 asks to start the run again."""
    folder = tmp_path / "outputs" / "smoke" / "train"
    words = ("trainer.save_every_steps=1", "dist.num_procs=2", "model.norm=sync")
    with start(command("train", *words), tmp_path) as process:
        wait_for(folder / "last.pt", process)
        process.terminate()
        out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "asked to stop: saved last.pt" in out
    assert err == ""
    assert 0 < saved(folder)["progress"]["global_step"] < 6
    done = tool("train", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert saved(folder)["progress"]["global_step"] == 6


LISTS_THREADS = """
import atexit, runpy, sys
from pathlib import Path
names = lambda: [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
atexit.register(lambda: print("left:", [name for name in names() if "gloo" in name]))
sys.argv = sys.argv[1:]
sys.path.insert(0, str(Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("readable", [True, False])
def test_no_thread_of_the_group_is_left_when_a_rank_ends(
    readable: bool, trained: Path, copy_of_videos: Path, tmp_path: Path
):
    """A thread of gloo that still holds a tensor aborts an interpreter that ends."""
    config = yaml.safe_load((trained / "config.yaml").read_text())
    config["data"]["root"] = str(copy_of_videos)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    if not readable:
        for video in (copy_of_videos / "train").glob("*/*.mp4"):
            video.write_text("no video")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    group = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "GLOO_SOCKET_IFNAME": "lo"}
    group |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    tool = [str(ROOT / "tools" / "train.py"), "--resolved", str(tmp_path / "config.yaml")]
    done = subprocess.run(
        [sys.executable, "-c", LISTS_THREADS, *tool],
        cwd=tmp_path,
        env={**ENVIRONMENT, **group},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == (0 if readable else 1), done.stderr
    assert done.stdout.splitlines()[-1] == "left: []"


@pytest.mark.slow
def test_a_finished_run_that_is_made_longer_goes_on(tool: Tool, tmp_path: Path):
    """With a constant learning rate it equals, bit for bit, the run that was longer from the start.

    The bits are equal on every processor: both do the same operations in the same order.
    """
    words = ("trainer.max_steps=null", "schedule=cosine", "schedule.floor=1", "schedule.warmup=0")
    for epochs in (1, 2):
        done = tool("train", *words, f"trainer.epochs={epochs}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "the run is longer, trainer.epochs 1 -> 2; from here on" in done.stdout
    whole = tool("train", *words, "trainer.epochs=2", "name=whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    assert_equal(tmp_path / "outputs/smoke/train", tmp_path / "outputs/whole/train")


def test_finetuning_loads_all_but_the_classifier(
    trained: Path, tool: Tool, copy_of_videos: Path, tmp_path: Path
):
    for split in ("train", "val"):
        shutil.copytree(copy_of_videos / split / "same", copy_of_videos / split / "third")
    done = tool(
        "train",
        f"data.root={copy_of_videos}",
        f"weights={trained / 'best.pt'}",
        "trainer.freeze=[conv1,norm1,res2,res3]",
        "trainer.max_steps=2",
        "model.non_local.scale=false",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    told = "the weights were trained as another network: model.non_local.scale True -> False\n"
    assert told in done.stdout
    assert "2 new, 2 ignored; the classifier is new, for other classes" in done.stdout
    assert "frozen: conv1, norm1, res2, res3" in done.stdout
    source = saved(trained, "best.pt")["model"]
    tuned = saved(tmp_path / "outputs" / "smoke" / "train")
    assert tuned["provenance"]["class_names"] == ["different", "same", "third"]
    assert tuned["model"]["head.fc.weight"].shape[0] == 3
    frozen = ("backbone.conv1.", "backbone.norm1.", "backbone.res2.", "backbone.res3.")
    for name, value in source.items():
        if name.startswith(frozen):
            assert torch.equal(tuned["model"][name], value), name
        elif name.endswith("conv_a.weight"):
            assert not torch.equal(tuned["model"][name], value), name


@pytest.mark.slow
def test_unreadable_videos_are_counted_and_listed(tool: Tool, copy_of_videos: Path, tmp_path: Path):
    for name in ("000001", "000003"):
        (copy_of_videos / "train" / "same" / f"{name}.mp4").write_bytes(b"no video")
    words = (f"data.root={copy_of_videos}", "data.max_bad_share=0.5")
    done = tool("train", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "outputs" / "smoke" / "train"
    bad = json.loads((folder / "metrics.json").read_text())["unreadable"]
    assert {Path(path).name for path in bad["files"]} == {"000001.mp4", "000003.mp4"}
    assert bad["clips"] >= 2  # each is drawn once an epoch, or replaces the other
    assert bad["of"] == 48 + bad["clips"]
    log = (folder / "log.txt").read_text()
    assert log.count("cannot read ") == 2
    assert f"{bad['clips']} of {bad['of']} clips could not be read, from 2 files" in done.stdout


@pytest.mark.slow
def test_too_many_unreadable_videos_stop_the_run(tool: Tool, copy_of_videos: Path, tmp_path: Path):
    for name in ("000001", "000003"):
        (copy_of_videos / "train" / "same" / f"{name}.mp4").write_bytes(b"no video")
    done = tool("train", f"data.root={copy_of_videos}", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert re.search(r"^error: 2 of \d+ clips could not be read, .*max_bad_share", done.stderr)


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        pytest.param(
            ["data.root=nowhere", "dist.num_procs=2"], 1, "nowhere", marks=pytest.mark.slow
        ),
        pytest.param(
            ["data.batch_size=9", "dist.num_procs=2"], 2, "8 or 10", marks=pytest.mark.slow
        ),
        pytest.param(["data.val=gone"], 1, "gone", marks=pytest.mark.slow),
        pytest.param(["weights=gone.pt"], 1, "gone.pt", marks=pytest.mark.slow),
        pytest.param(["trainer.freeze=[res9]"], 2, "res9", marks=pytest.mark.slow),
        pytest.param(["trainer.precision=fp8"], 2, "fp8", marks=pytest.mark.slow),
    ],
)
def test_a_mistake_costs_one_line(tool: Tool, tmp_path: Path, words: list[str], code: int, named):
    """Also from two ranks."""
    done = tool("train", *words, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert done.stderr.startswith("error: ") and named in done.stderr


# Residual branches start at zero, as in the published recipes. Without that, each step multiplies
# rounding errors, in one process as in two.
FIVE = (
    "trainer.max_steps=5",
    "optim=sgd",
    "optim.lr=0.01",
    "schedule.warmup=0",
    "model.zero_init_residual=true",
)


@pytest.fixture(scope="module")
def alone(tool: Tool, tmp_path_factory) -> Callable[[str], Path]:
    """norm -> the folder of a run of five steps in one process."""
    cwd = tmp_path_factory.mktemp("alone")

    def run(norm: str) -> Path:
        folder = cwd / "outputs" / norm / "train"
        if not folder.exists():
            words = (*FIVE, f"model.norm={norm}", f"model.non_local.norm={norm}", f"name={norm}")
            done = tool("train", *words, cwd=cwd)
            assert done.returncode == 0, done.stderr
        return folder

    return run


def assert_close(folder: Path, other: Path) -> None:
    a, b = saved(folder)["model"], saved(other)["model"]
    assert a["head.fc.bias"].abs().max() > 1e-4, "nothing was learned"
    for name, value in a.items():
        rtol = 1e-5 if "running_" in name else 0  # variances are far above 1
        torch.testing.assert_close(value, b[name], rtol=rtol, atol=1e-5, msg=name)
    a, b = (json.loads((f / "metrics.json").read_text())["epochs"] for f in (folder, other))
    for x, y in zip(a, b, strict=True):
        assert x["train"] == pytest.approx(y["train"], abs=1e-4)
        assert x["val"] == y["val"]


def single_folder(cwd: Path) -> Path:
    folders = [path.parent for path in cwd.rglob("last.pt")]
    assert len(folders) == 1
    return folders[0]


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["sync", "frozen"])
def test_two_ranks_compute_the_steps_of_one(
    tool: Tool, alone: Callable[[str], Path], tmp_path: Path, norm: str
):
    """The weights are equal to 1e-5 after five steps."""
    words = (*FIVE, f"model.norm={norm}", f"model.non_local.norm={norm}", f"name={norm}")
    done = tool("train", *words, "dist.num_procs=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "2 x cpu" in done.stdout
    assert_close(single_folder(tmp_path), alone(norm))


@pytest.mark.slow
def test_torchrun_computes_the_steps_of_one(
    command: Command, alone: Callable[[str], Path], tmp_path: Path
):
    words = (*FIVE, "model.norm=sync", "model.non_local.norm=sync", "name=sync")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, *command("train", *words)[1:]],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert_close(single_folder(tmp_path), alone("sync"))


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_the_end_of_a_rank_ends_all_with_one_error(command: Command, tmp_path: Path):
    words = ("dist.num_procs=2", "trainer.max_steps=3000", "trainer.save_every_steps=1")
    with start(command("train", *words), tmp_path) as process:
        wait_for(tmp_path / "outputs" / "smoke" / "train" / "last.pt", process)
        ranks = children(process.pid)
        os.kill(ranks[-1], signal.SIGKILL)
        begin = time.monotonic()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert time.monotonic() - begin < 15
    (error,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert error.startswith("error: a rank was ended by SIGKILL")
    assert error.endswith("the same command resumes from the last checkpoint")
    assert not any(is_alive(pid) for pid in ranks)


@pytest.mark.slow
def test_a_sweep_ends_in_one_table(tool: Tool, tmp_path: Path):
    sweep = yaml.safe_load((CONFIG_DIR / "sweep" / "pairwise.yaml").read_text())
    members = [name.strip() for name in sweep["hydra"]["sweeper"]["params"]["block"].split(",")]
    assert set(PAIRWISE) | set(BLOCKS) - {"non_local"} == set(members)
    done = tool("train", "+sweep=pairwise", "trainer.max_steps=2", "-m", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "outputs" / "smoke" / "sweep_pairwise" / "table.md").read_text()
    assert table in done.stdout
    header, _, *rows = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()
    )
    assert header[:2] == ["block", "best_top1"]
    assert [row[0] for row in rows] == members
    assert all(0 <= float(row[1]) <= 100 for row in rows)


@pytest.mark.slow
def test_a_run_that_fails_does_not_stop_the_sweep(tool: Tool, tmp_path: Path):
    words = ("model.non_local.pairwise=dot_product,cosine,gaussian", "trainer.max_steps=2")
    done = tool("train", *words, "-m", cwd=tmp_path)
    assert done.returncode == 1
    table = next(tmp_path.rglob("table.md")).read_text()
    assert table.count("\n") == 5
    assert "pairwise=cosine is unknown" in table
    assert "1 of 3 runs of the sweep failed" in done.stderr


@pytest.fixture
def board(trained: Path) -> Iterator[str]:
    """The address of a TensorBoard server for the output folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = [sys.executable, "-m", "tensorboard.main", "--logdir", str(trained)]
    server += ["--host", "127.0.0.1", "--port", str(port), "--load_fast", "false"]
    with subprocess.Popen(server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        yield f"http://127.0.0.1:{port}/data/plugin"
        process.terminate()


def ask(address: str, until: str) -> list | dict:
    """The answer of the server, after it has started and read the files."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                text = answer.read().decode()
            if until in text:
                return json.loads(text)
        except OSError:  # not started yet
            pass
        time.sleep(0.2)
    raise AssertionError(f"no answer with {until!r} at {address}")


def test_tensorboard_serves_the_scalars(board: str, trained: Path):
    tags = ask(f"{board}/scalars/tags", "val/top1")["tensorboard"]
    train = ("loss", "lr", "top1", "top5", "grad_norm", "clips_per_second", "data_wait")
    assert {f"train/{name}" for name in train} <= set(tags)
    points = ask(f"{board}/scalars/scalars?run=tensorboard&tag=val/top1", "[")
    records = json.loads((trained / "metrics.json").read_text())["epochs"]
    assert [(step, top1) for _, step, top1 in points] == [
        (record["global_step"], record["val"]["top1"]) for record in records
    ]
