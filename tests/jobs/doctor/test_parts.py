"""What the doctor looks at, on this machine and with parts that are missing or broken."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from nlnet.jobs.doctor import compute, machine, packages, self_test, video
from nlnet.numerics import trust
from tests.cli.commands import tool


def test_the_tool_prints_a_page_and_writes_it_as_json(tmp_path: Path):
    done = tool("doctor", "--json", "page.json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    sections = json.loads((tmp_path / "page.json").read_text())
    rows = {row["name"]: row for section in sections.values() for row in section}
    assert rows["torch"]["value"] == torch.__version__.split("+")[0]
    assert "h264" in rows["decodes"]["value"] and "loss" in rows
    for row in rows.values():
        assert row["value"] in done.stdout
        assert row["status"] != "fail"
    assert {"versions", "machine", "folders", "extras"} <= sections.keys()


def requirements(lines: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "requires", lambda name: list(lines))


def test_missing_and_old_packages_fail_and_extras_are_notes(monkeypatch: pytest.MonkeyPatch):
    lines = ["torch>=2.11", "numpy>=99", "no-such-package>=1", 'nowhere>=2; extra == "serve"']
    requirements([*lines, 'numpy>=1; extra == "dev"', 'nlnet[serve]; extra == "dev"'], monkeypatch)
    rows = {finding.name: finding for finding in packages.versions()}
    assert not rows["torch"].failed
    assert rows["numpy"].failed and rows["numpy"].remedy.endswith('pip install "numpy>=99"')
    assert rows["no-such-package"].remedy == 'pip install "no-such-package>=1"'
    assert "nowhere" not in rows
    dev, serve = packages.extras()
    assert (dev.name, dev.status) == ("dev", "ok")
    assert (serve.value, serve.status) == ("lacks nowhere", "note")
    assert serve.remedy == 'pip install "nlnet[serve]"'


def test_a_checkout_that_is_not_installed_is_a_note(monkeypatch: pytest.MonkeyPatch):
    requirements([], monkeypatch)
    assert packages.versions()[-1].status == "note"
    assert packages.extras() == []


def test_the_folder_of_runs(tmp_path: Path):
    outputs, *_ = machine.storage(tmp_path / "outputs")
    assert outputs.status == "ok" and list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    denied, *_ = machine.storage(tmp_path / "file")
    assert denied.failed and "hydra.run.dir" in denied.remedy


def test_a_video_with_other_frames_is_refused(monkeypatch: pytest.MonkeyPatch):
    assert video.encode_and_decode()["frames"].startswith("12 written")
    monkeypatch.setattr(video, "TOLERANCE", -1)
    with pytest.raises(video.UserError, match="gray levels"):
        video.encode_and_decode()


def test_codecs_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(video, "CODECS", ("h264", "no_codec"))
    assert video.decoders()["cannot decode"] == "no_codec"
    monkeypatch.setattr(video, "CODECS", ("no_codec",))
    with pytest.raises(video.UserError, match="h264"):
        video.decoders()


def test_a_kernel_with_wrong_values_is_refused(monkeypatch: pytest.MonkeyPatch):
    right = compute.softmax_attention
    monkeypatch.setattr(compute, "softmax_attention", lambda *args: 1.001 * right(*args))
    with pytest.raises(compute.UserError, match="small kernel differs from float64 by 1"):
        compute.kernel()


@pytest.mark.slow
@pytest.mark.usefixtures("wrong_kernel")
def test_a_convolution_that_is_wrong_in_bfloat16_is_named(monkeypatch: pytest.MonkeyPatch):
    text = compute.convolutions()["convolutions"]
    assert "backbone.res3.block0.shortcut: wrong by inf, sliced is right" in text
    assert text.count("is right") == 3
    monkeypatch.setattr(trust, "forms_for", lambda *args: ["plain"])
    monkeypatch.setenv("TORCH_HOME", str(Path(os.environ["TORCH_HOME"]) / "empty"))
    with pytest.raises(
        compute.UserError, match=r"res3\.block0\.shortcut: wrong in bfloat16 by inf"
    ):
        compute.convolutions()


def test_a_network_that_does_not_learn_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self, *args, **kwargs: None)
    with pytest.raises(compute.UserError, match="the losses of two steps"):
        compute.training_step()


# The child prints a result for `first` and then ends in some way.
CHILD = "import json, os, sys, time\nprint(json.dumps(['first', {'fact': 'x'}, 0.5]), flush=True)\n"
ENDINGS = {
    "os.abort()": "ended by signal 6",
    "raise ImportError('no libcuda.so')": "ImportError: no libcuda.so",
    "time.sleep(60)": "does not end within 2 s",
    "sys.exit('frames differ')": "frames differ",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_part_that_crashes_or_hangs_does_not_stop_the_others(
    ending: str, monkeypatch: pytest.MonkeyPatch
):
    real = subprocess.run
    healthy = "import json\nprint(json.dumps(['third', {'other': 'y'}, 0.1]))"

    def run(words: list[str], **options) -> subprocess.CompletedProcess[str]:
        program = CHILD + ending if "first" in words else healthy
        return real([sys.executable, "-c", program], **options)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(self_test, "TIME_LIMIT", 2.0)
    part = self_test.Part(dict, "do this")
    monkeypatch.setattr(self_test, "PARTS", dict.fromkeys(("first", "second", "third"), part))
    sections = self_test.self_test(("first", "second", "third"))
    findings = [finding for section in sections for finding in section.findings]
    assert [finding.name for finding in findings] == ["fact", "second", "other"]
    assert findings[1].failed and findings[1].remedy == "do this"
    assert findings[1].value == ENDINGS[ending]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_part():
    precisions = {f"convolutions, {name}" for name in compute.REDUCED}
    assert compute.gpu().keys() == {"loss", "small", "large", *precisions}


def test_the_gpu_part_checks_every_precision(monkeypatch: pytest.MonkeyPatch):
    """With a device that is not there: what it calls is what a GPU gets."""
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(compute, "training_step", lambda device: {"loss": device})
    monkeypatch.setattr(compute, "kernel", lambda device: {"small": device})

    def check(build, size, *, device, dtype, channels_last):
        asked.append((device.type, dtype, torch.backends.cudnn.conv.fp32_precision))
        return {}, {}

    monkeypatch.setattr(compute, "check_network", check)
    found = compute.gpu()
    assert asked == [("cuda", dtype, "tf32") for dtype in compute.REDUCED.values()]
    assert found["convolutions, TF32"] == "all 0 of I3D-NL5 agree with float64"
