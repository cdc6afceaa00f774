"""A checkpoint of each code base, in its own envelope, is converted, evaluated and fine-tuned."""

import importlib.util
import json
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor

from nlnet.cli.choices import CONFIG_DIR
from nlnet.cli.compose import to_run
from nlnet.config import ResNetConfig, RunConfig, parse_run, register_schemas, run_text
from nlnet.errors import UsageError, UserError
from nlnet.jobs import convert_arguments
from nlnet.jobs.convert import convert, convert_settings
from nlnet.jobs.evaluate import evaluate_run
from nlnet.jobs.train import train
from nlnet.model.build import build_model
from nlnet.weights.experiment import read_settings
from nlnet.weights.files import NLNET, read_weight_file
from nlnet.weights.load import INFLATIONS
from nlnet.weights.rewrite import REWRITES, export_state
from nlnet.weights.sources.all import CODE_BASES
from tests.commands import run_python

TOOLS = Path(__file__).parents[2] / "tools"
VideoFactory = Callable[..., Path]


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tool_{name}", TOOLS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_config(*overrides: str, experiment: str = "folder") -> RunConfig:
    register_schemas()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return to_run(compose("run", overrides=[f"+experiment={experiment}", *overrides]))


def caffe2_envelope(state: dict[str, Tensor], path: Path) -> None:
    blobs: dict[str, Any] = {name: tensor.numpy() for name, tensor in state.items()}
    blobs |= {f"{name}_momentum": blob * 0 for name, blob in list(blobs.items())[:3]}
    blobs |= {"lr": blobs["pred_b"][:1], "model_iter": blobs["pred_b"][:1]}
    path.write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))


MMACTION2 = ["model.non_local.res3=[0]", "model.non_local.out_bias=false"]

# Format -> settings of a tiny network that it can hold, and how its code base saves one.
ENVELOPES: dict[str, tuple[list[str], Callable[[dict[str, Tensor], Path], None]]] = {
    "caffe2": (["model.conv1_kernel=[5,7,7]", "model.non_local.res3=[0]"], caffe2_envelope),
    "slowfast": (
        ["model.non_local.res4=[0]", "model.non_local.pairwise=dot_product"],
        lambda s, p: torch.save({"epoch": 3, "model_state": s, "optimizer_state": {}}, p),
    ),
    "mmaction2": (
        [*MMACTION2, "model.non_local.subsample=none"],
        lambda s, p: torch.save({"meta": {"epoch": 3}, "state_dict": OrderedDict(s)}, p),
    ),
    "mmaction2_pooled": (
        [
            *MMACTION2,
            "model.non_local.subsample=embedded",
            "model.non_local.pairwise=concatenation",
        ],
        lambda s, p: torch.save({"meta": {"epoch": 3}, "state_dict": OrderedDict(s)}, p),
    ),
    "pytorchvideo": ([], lambda s, p: torch.save({"model_state": s}, p)),
    "pytorchvideo_slow": (
        ["model.pool2_kernel=null"],
        lambda s, p: torch.save({"model_state": s}, p),
    ),
    "torchvision": ([], lambda s, p: torch.save(OrderedDict(s), p)),
}


def tiny(settings: list[str], root: Path) -> list[str]:
    """Overrides of a run that takes a second on a CPU."""
    size = ["model=c2d_tiny", "model.depth=14", "model.width=8", "non_local=none", "recipe=paper"]
    clip = ["data.clip.num_frames=4", "data.clip.crop_size=32", "data.clip.frame_stride=2"]
    views = [
        f"data.{views}.{key}"
        for views in ("val_views", "test_views")
        for key in ("crop_size=32", "short_side=32", "num_clips=1", "num_crops=1")
    ]
    rest = ["data.augment.short_side=[32,40]", "data.batch_size=2", "data.num_workers=0"]
    length = ["trainer.max_steps=1", "dist.device=cpu", f"data.root={root}"]
    return [*size, *clip, *views, *rest, *length, *settings]


def videos(root: Path, classes: str, make: VideoFactory) -> Path:
    for split in ("train", "val"):
        for name in classes:
            make(f"{root.name}/{split}/{name}/0.mp4", num_frames=12)
    return root


def checkpoint(form: str, path: Path, root: Path, classes: int) -> dict[str, Tensor]:
    """Write random weights as the code base writes them."""
    settings, save = ENVELOPES[form]
    torch.manual_seed(0)
    model = build_model(run_config(*tiny(settings, root)).model, classes)
    for name, tensor in model.state_dict().items():
        if name.endswith(("norm_c.weight", "running_var")):
            tensor.uniform_(0.5, 1.0)
    state = export_state(model.state_dict(), form, frames=form != "torchvision")
    save(state, path)
    return state


@pytest.mark.parametrize("form", ENVELOPES)
def test_convert_evaluate_and_fine_tune(
    form: str, tmp_path: Path, video_file: VideoFactory, capsys: pytest.CaptureFixture[str]
):
    data = videos(tmp_path / "two", "ab", video_file)
    theirs = checkpoint(form, tmp_path / "theirs", data, classes=2)
    convert(str(tmp_path / "theirs"), tmp_path / "ours.pt")
    assert f"theirs: {len(theirs)} tensors, {form}" in capsys.readouterr().out

    settings = ENVELOPES[form][0]
    scores = {}
    for name in ("theirs", "ours.pt"):  # the tools read both
        run = run_config(*tiny(settings, data), f"weights={tmp_path / name}")
        out_dir = tmp_path / "eval" / name
        evaluate_run(run, out_dir)
        scores[name] = (out_dir / "predictions.csv").read_text()
        assert json.loads((out_dir / "metrics.json").read_text())["videos"] == 2
    assert scores["theirs"] == scores["ours.pt"]

    other = videos(tmp_path / "three", "xyz", video_file)
    run = run_config(*tiny(settings, other), f"weights={tmp_path / 'ours.pt'}", "data.batch_size=3")
    train(run, tmp_path / "tuned")
    log = (tmp_path / "tuned" / "log.txt").read_text()
    assert "2 new, 2 ignored; the classifier is new, for other classes" in log
    tuned = read_weight_file(tmp_path / "tuned" / "last.pt")
    assert tuned.state["head.fc.weight"].shape[0] == 3 and tuned.class_names == ["x", "y", "z"]


@pytest.mark.parametrize("form", ENVELOPES)
def test_there_and_back_is_bit_equal(form: str, tmp_path: Path):
    theirs = checkpoint(form, tmp_path / "theirs", tmp_path, classes=2)
    code_base = form.split("_")[0]
    convert(str(tmp_path / "theirs"), tmp_path / "ours.pt", from_=code_base)
    convert(str(tmp_path / "ours.pt"), tmp_path / "back", to=code_base)
    convert(str(tmp_path / "theirs"), tmp_path / "direct", to=code_base)
    for name in ("back", "direct"):
        found = read_weight_file(tmp_path / name).foreign
        assert found is not None and found.keys() == theirs.keys()
        assert all(torch.equal(found[key], theirs[key]) for key in theirs)


def test_an_image_network_is_inflated_for_an_experiment(tmp_path: Path):
    """The file then contains its config, so that it needs no other argument."""
    torch.manual_seed(0)
    flat = build_model(run_config("model=c2d_r50", "non_local=none", "data.root=.").model, 3)
    images = export_state(flat.state_dict(), "torchvision", frames=False)
    torch.save(images, tmp_path / "resnet.pth")
    convert(
        str(tmp_path / "resnet.pth"),
        tmp_path / "i3d.pt",
        run=run_config("data.root=.", experiment="caffe2/i3d_8x8"),
    )
    found = read_weight_file(tmp_path / "i3d.pt")
    kernel = found.state["backbone.conv1.weight"]
    assert kernel.shape == (64, 3, 5, 7, 7)
    torch.testing.assert_close(kernel.sum(2), images["conv1.weight"])
    assert found.config is not None and parse_run(found.config, "x").name == "caffe2/i3d_8x8"
    convert(str(tmp_path / "i3d.pt"), tmp_path / "i3d.pyth", to="pytorchvideo")
    theirs = read_weight_file(tmp_path / "i3d.pyth")
    assert theirs.form == "pytorchvideo"
    with pytest.raises(UserError, match="too long in time for torchvision"):
        convert(str(tmp_path / "i3d.pt"), tmp_path / "x", to="torchvision")
    assert not (tmp_path / "x").exists()


def test_norms_are_folded_for_a_long_clip_experiment(tmp_path: Path):
    """As the authors do: start from the network of short clips, with fixed norms and new blocks."""
    torch.manual_seed(0)
    run = run_config("data.root=.", experiment="caffe2/i3d_8x8")
    state = export_state(build_model(run.model, 3).state_dict(), "caffe2")
    caffe2_envelope(state, tmp_path / "i3d.pkl")
    convert(
        str(tmp_path / "i3d.pkl"),
        tmp_path / "a.pt",
        run=run_config("data.root=.", experiment="caffe2/i3d_nl5_32x4"),
    )
    found = read_weight_file(tmp_path / "a.pt").state
    assert not any("running" in key for key in found)
    convert(
        str(tmp_path / "i3d.pkl"), tmp_path / "b.pkl", to="caffe2", rewrites=["norms_to_affine"]
    )
    folded = read_weight_file(tmp_path / "b.pkl").state
    assert folded.keys() == found.keys()
    assert all(torch.equal(folded[key], found[key]) for key in found)


def test_what_a_target_cannot_hold_is_refused(tmp_path: Path):
    checkpoint("caffe2", tmp_path / "theirs", tmp_path, classes=2)
    with pytest.raises(UserError, match="mmaction2 cannot hold this network: its blocks pool"):
        convert(str(tmp_path / "theirs"), tmp_path / "x", to="mmaction2")
    with pytest.raises(UserError, match=r"it has no name for 12 keys \(backbone.res3.nl0"):
        convert(str(tmp_path / "theirs"), tmp_path / "x", to="pytorchvideo")
    with pytest.raises(UserError, match="it is another network; use the experiment"):
        convert(
            str(tmp_path / "theirs"),
            tmp_path / "x",
            run=run_config("data.root=.", experiment="i3d"),
        )
    torch.save({"model": {"backbone.conv1.weight": torch.zeros(64, 3, 1, 7, 7)}}, tmp_path / "part")
    with pytest.raises(UserError, match=r"another network: the file lacks 317 keys \(backbone"):
        convert(
            str(tmp_path / "part"), tmp_path / "x", run=run_config("data.root=.", experiment="c2d")
        )
    with pytest.raises(
        UsageError, match="--rewrite=melt is unknown; choose one of: norms_to_affine"
    ):
        convert(str(tmp_path / "theirs"), tmp_path / "x", rewrites=["melt"])
    assert not (tmp_path / "x").exists()


LOST = ("backbone.res5.block0.conv_b.weight", "backbone.res2.block0.shortcut_norm.bias")


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("lost", [*LOST, "backbone.norm1.running_var", "head.fc.bias"])
def test_an_incomplete_network_is_refused(lost: str, known: bool, tmp_path: Path):
    run = run_config(*tiny(["model.depth=26"], tmp_path))
    state = build_model(run.model, 2).state_dict()
    provenance = {"config": run_text(run)} if known else {}
    torch.save({"model": state, "provenance": provenance}, tmp_path / "whole.pt")
    convert(str(tmp_path / "whole.pt"), tmp_path / "y", to="slowfast")
    del state[lost]
    torch.save({"model": state, "provenance": provenance}, tmp_path / "part.pt")
    with pytest.raises(UserError, match=rf"not a whole network: it lacks 1 keys \({lost}\)"):
        convert(str(tmp_path / "part.pt"), tmp_path / "x", to="slowfast")
    torch.save({"model": {"backbone.conv1.weight": state["backbone.conv1.weight"]}}, tmp_path / "1")
    with pytest.raises(UserError, match="not a whole network"):
        convert(str(tmp_path / "1"), tmp_path / "x")
    assert not (tmp_path / "x").exists()


SETTINGS = {
    "slowfast": {"settings": {"arch": "i3d", "depth": 50}, "frames": 8},
    "mmaction2": {"backbone": {"type": "mmaction.ResNet3d"}, "head": {"type": "I3DHead"}},
    "pytorchvideo": {"settings": {"arch": "slow", "depth": 101}},
    "torchvision": {"depth": 50},
}


@pytest.mark.parametrize("code_base", SETTINGS)
def test_settings_become_an_experiment(code_base: str, tmp_path: Path):
    source, target = tmp_path / "settings.json", tmp_path / "mine.yaml"
    source.write_text(json.dumps(SETTINGS[code_base]))
    convert_settings(source, target, code_base)
    assert target.read_text().startswith("# @package _global_\n")
    written, usual = OmegaConf.load(target), OmegaConf.structured(ResNetConfig)
    expected = read_settings(code_base, SETTINGS[code_base])
    assert written.name == "mine" and OmegaConf.merge(usual, written.model) == expected
    # The network is the same whatever the default groups are.
    other = OmegaConf.structured(run_config("stem=paper", experiment="i3d_nl10").model)
    merged, expected = OmegaConf.merge(other, written.model), OmegaConf.structured(expected)
    undetermined = CODE_BASES[code_base].undetermined
    assert all(merged[key] == expected[key] for key in expected if key not in undetermined)
    target.unlink()
    with pytest.raises(UsageError, match="settings need --from"):
        convert_settings(source, target, None)
    source.write_text("{}")
    with pytest.raises(UserError, match=f"settings of {code_base}: .* is missing"):
        convert_settings(source, target, code_base)
    source.write_text("{")
    with pytest.raises(UserError, match="no JSON file"):
        convert_settings(source, target, code_base)
    assert not target.exists()


def test_blocks_go_to_another_code_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    theirs = checkpoint("caffe2", tmp_path / "theirs", tmp_path, classes=2)
    convert(str(tmp_path / "theirs"), tmp_path / "sf.pyth", to="slowfast")
    assert "pool1 is padded by 0 here and by 1 in slowfast" in capsys.readouterr().out
    found = read_weight_file(tmp_path / "sf.pyth").foreign
    assert found is not None
    key = "s3.pathway0_nonlocal0.conv_theta.weight"
    assert torch.equal(found[key], theirs["nonlocal_conv3_0_theta_w"])
    assert found["s1.pathway0_stem.bn.num_batches_tracked"] == 0
    convert(str(tmp_path / "sf.pyth"), tmp_path / "back.pkl", to="caffe2")
    back = read_weight_file(tmp_path / "back.pkl").foreign
    assert back is not None and back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["nowhere.pkl", "x.pt"], 1, "error: nowhere.pkl: no such file"),
        (["nowhere.pkl", "x.pt", "--to", "keras"], 2, "error: --to=keras is unknown"),
        (["nowhere.pkl"], 2, "error: the following arguments are required: DST; see --help"),
        (["--help"], 0, "python tools/convert.py caffe2/i3d_nl5_8x8"),
    ],
)
def test_the_command_line(words: list[str], code: int, line: str, tmp_path: Path):
    done = run_python([str(TOOLS / "convert.py"), *words], tmp_path)
    assert done.returncode == code
    assert line in (done.stdout if code == 0 else done.stderr)
    if code:
        assert len(done.stderr.strip().splitlines()) == 1
    else:
        assert done.stdout.count("python tools/convert.py ") == 4


def test_the_help_names_what_the_converter_knows():
    """The help text has copies of the names, because the modules that own them load torch."""
    assert (NLNET, *CODE_BASES) == convert_arguments.FORMAT_NAMES
    assert tuple(INFLATIONS) == convert_arguments.INFLATION_NAMES
    assert tuple(REWRITES) == convert_arguments.REWRITE_NAMES
