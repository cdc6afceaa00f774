"""A run folder belongs to one configuration, and differences between configurations are named."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nlnet.cli.folders import LOCK, claim_folder, hold_folder, network_differences
from nlnet.config import ResNetConfig, run_text
from nlnet.errors import UserError
from nlnet.files import write_text
from tests.cli.commands import run_config, tool


def test_a_folder_belongs_to_one_configuration(tmp_path: Path):
    claim_folder(run_config("optim.lr=0.25"), tmp_path)  # without a log: the run never started
    claim_folder(run_config(), tmp_path)
    (tmp_path / "log.txt").touch()
    claim_folder(run_config(), tmp_path)
    free = ("dist.num_procs=2", "dist.strategy=fsdp", "data.num_workers=1")
    claim_folder(run_config(*free), tmp_path)
    with pytest.raises(UserError, match=r"optim\.lr .* -> 0\.5") as caught:
        claim_folder(run_config("optim.lr=0.5", "seed=3"), tmp_path)
    assert "seed 0 -> 3" in str(caught.value)


def test_a_run_may_become_longer_and_not_shorter(tmp_path: Path):
    words = ("trainer.max_steps=null", "trainer.epochs={}")
    claim_folder(run_config(words[0], words[1].format(10)), tmp_path)
    (tmp_path / "log.txt").touch()
    claim_folder(run_config(words[0], words[1].format(14)), tmp_path)
    with pytest.raises(UserError, match=r"trainer\.epochs 14 -> 13"):
        claim_folder(run_config(words[0], words[1].format(13)), tmp_path)
    with pytest.raises(UserError, match=r"\(seed 0 -> 1\)"):
        claim_folder(run_config(words[0], words[1].format(15), "seed=1"), tmp_path)


def test_what_to_do_about_faults_does_not_lock_a_folder(tmp_path: Path):
    """The remedy of an error message, `data.allow_bad=true`, must work in the same folder."""
    claim_folder(run_config(), tmp_path)
    (tmp_path / "log.txt").touch()
    claim_folder(run_config("data.allow_bad=true", "data.max_bad_share=0.5"), tmp_path)


HOLDS = """
import sys, time
from pathlib import Path
from nlnet.cli.folders import hold_folder
with hold_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_process_trains_in_a_folder(tmp_path: Path):
    """A killed process leaves its file, which the next one takes over."""
    with subprocess.Popen([sys.executable, "-c", HOLDS, tmp_path], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        named = rf"process {other.pid} on {re.escape(socket.gethostname())} trains here now"
        with pytest.raises(UserError, match=named), hold_folder(tmp_path):
            pass
        other.kill()
    assert (tmp_path / LOCK).exists()
    with hold_folder(tmp_path):
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} ")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["block=dot_product"], "model.non_local.pairwise embedded_gaussian -> dot_product"),
        (["model.non_local.scale=false"], "model.non_local.scale True -> False"),
        (["model.non_local.subsample=embedded"], "model.non_local.subsample"),
        (["model.non_local.group_frames.res3=2"], "model.non_local.group_frames.res3 None -> 2"),
        (["model.non_local.temperature=2"], "model.non_local.temperature"),
        (["model.pool1_padding=[0,0,0]"], "model.pool1_padding"),
        (["model.normalization=slowfast"], "model.normalization"),
        (["model.head_window=[2,2]"], "model.head_window None -> [2, 2]"),
        (["model.head_average=logits"], "model.head_average"),
    ],
)
def test_a_network_with_another_output_is_reported(words: list[str], named: str):
    """The tensors have the same shapes; the configuration in the weights differs."""
    (line,) = network_differences(run_text(run_config()), run_config(*words).model)
    assert line.startswith(named)


def test_keys_that_only_training_reads_do_not_count():
    text = run_text(run_config())
    words = ["model.dropout=0.25", "model.norm=frozen", "model.non_local.norm=sync"]
    words += ["model.zero_init_residual=false", "model.non_local.init=kaiming", "optim.lr=1"]
    assert network_differences(text, run_config(*words).model) == []
    plain = run_config("non_local=none")
    unused = run_config("non_local=none", "block=dot_product").model
    assert network_differences(run_text(plain), unused) == []
    assert network_differences("name: older\nmodel: {}", ResNetConfig()) == []


def test_a_file_that_cannot_be_written_costs_one_line(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/x\.json: cannot be written \([^\n]*$"):
        write_text(tmp_path / "file" / "x.json", "{}")
    write_text(tmp_path / "new" / "x.json", "{}")
    assert (tmp_path / "new" / "x.json").read_text() == "{}"


def test_describe_writes_only_the_named_file(tmp_path: Path):
    done = tool("describe", "+experiment=smoke", "json=x/y.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["x", "y.json"]
