"""A run sees texts exactly as they were typed on the command line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from nlnet.cli.words import prepare_words, string_keys
from nlnet.config import DescribeConfig
from nlnet.errors import UsageError
from tests.cli.commands import tool

# Texts that Hydra's grammar refuses or reads as something else.
TEXTS = [
    *("all.csv#val", "/data/été", "/data/my (1)", "a&b.csv", "it's", "a;b", "a!b", "[x]", "a#b"),
    *("a,b", "a=b", "{x}", "~x", "hy/trail ", " lead", "a<b>", "a^b", "a`b", '"', 'say "x"', "'"),
    *("epoch=3-step=10.ckpt", "outputs/run/sweep/block=dot_product,seed=1/train/best.pt"),
    *("2024_01_02", "1e3", "20_01", "1.50", "+5", "1E5", "true", "FALSE", "nan", "null"),
    *("007", "0x10", "12:30:45", "2024-01-02", "a$b", "100%", "a|b", "a b", "a\tb", "C:\\x"),
    *("choice(a", "clips(1)", "a\nb", "名前", "", "x" * 300, "a\\", "a\\'", '\\"'),
]


def seen(*words: str) -> DescribeConfig:
    """The config of a run that Hydra starts with these words."""
    cfg = OmegaConf.structured(DescribeConfig(name="run"))
    for word in OverridesParser.create().parse_overrides(list(words)):
        OmegaConf.update(cfg, word.key_or_group, word.value(), merge=True)
    return cfg


def runs(*words: str) -> list[list[str]]:
    """The words of each run that Hydra's sweeper makes of a command line with -m."""
    prepared = [word for word in prepare_words([*words, "-m"]) if word != "-m"]
    parsed = OverridesParser.create().parse_overrides(prepared)
    (batch,) = BasicSweeper.split_arguments(parsed, None)
    return batch


@pytest.mark.parametrize("text", TEXTS)
def test_a_run_sees_the_text_as_typed(text: str):
    run = seen(*prepare_words([f"name={text}", f"data.train={text}", f"++data.val={text}"]))
    assert run.name == run.data.train == run.data.val == text


# Commas separate choices, spaces around a choice do not count, and a backslash escapes the comma.
CHOICES = [text for text in TEXTS if "," not in text and text.strip(" \\") == text != ""]


@pytest.mark.parametrize("text", CHOICES)
@pytest.mark.parametrize("form", ["first,{}", "{},first", "choice(first,{})"])
def test_each_choice_of_a_sweep_is_a_text_as_typed(form: str, text: str):
    both = runs(f"data.train={form.format(text)}")
    first, second = reversed(both) if form.startswith("{}") else both
    assert first == ["data.train=first"]
    assert seen(*second).data.train == text


def test_every_string_key_of_a_run_takes_any_text():
    """The keys are those of the schema: a new one needs no list."""
    keys = [key for key in string_keys() if not key.startswith("hydra.")]
    assert len(keys) > 25
    for key in keys:
        (word,) = prepare_words([f"{key}=a,1e3#x"])
        assert word == f'{key}="a,1e3#x"'


@pytest.mark.parametrize(
    "word",
    [
        "name=run_1",
        "name=20",
        "name=1.5",
        "name=True",
        "data.train=lists/train-2.txt",
        "model.non_local.pairwise=dot_product",
        "clip=8x8",
        "+experiment=caffe2/i3d_nl5_8x8",
        "data.train='all.csv#train'",
        'data.train="it\'s"',
        r"data.train=a\=b",
        "data.root=${oc.env:HOME}/videos",
        "data.train=str(5)",
        "data.classes=null",
        "weights=NULL",
        "~data.classes",
        "trainer.epochs=1_0",
        "optim.lr=1e-3",
        "data.augment.short_side=[32,36]",
        "hydra/launcher=joblib",
    ],
)
def test_words_that_hydra_reads_as_meant_stay_as_they_are(word: str):
    assert prepare_words([word]) == [word]


@pytest.mark.parametrize(
    "word",
    [
        "block=gaussian,dot_product",
        "model.non_local.pairwise=gaussian,dot_product",
        "model.non_local.pairwise=choice(gaussian,dot_product)",
        "block=choice(gaussian,unary)",
        "block=glob(*gaussian)",
        "name=range(1,4)",
        "trainer.epochs=1,2",
        "data.train='a,b',c",
        "data.classes=null,names.txt",
        "weights=null",
    ],
)
def test_a_sweep_keeps_its_words_and_so_its_folders(word: str):
    assert prepare_words(["-m", word]) == ["-m", word]
    assert prepare_words([word, "+sweep=axes"])[0] == word
    assert prepare_words([word, "hydra.mode=MULTIRUN"])[0] == word


def test_a_range_counts_in_a_sweep():
    assert runs("name=range(1,4)") == [["name=1"], ["name=2"], ["name=3"]]


def test_an_interpolation_beside_special_characters_is_resolved(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VIDEOS", "/data")
    (word,) = prepare_words(["data.root=${oc.env:VIDEOS}/été (1)"])
    assert seen(word).data.root == "/data/été (1)"


@pytest.mark.parametrize("key", ["data.root", "data.train", "data.classes", "weights", "json"])
@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_a_leading_tilde_of_a_path_is_the_home_folder(
    key: str, quote: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", "/home/mé")
    run = seen(*prepare_words([f"{key}={quote}~/x#y{quote}"]))
    assert OmegaConf.select(run, key) == "/home/mé/x#y"
    first, second = runs(f"{key}={quote}~/a{quote},{quote}~{quote}")
    assert OmegaConf.select(seen(*first), key) == "/home/mé/a"
    assert OmegaConf.select(seen(*second), key) == "/home/mé"
    assert seen(*prepare_words(["name=~/x"])).name == "~/x"  # not a path


def test_in_a_sweep_a_path_with_commas_that_exists_is_one_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "block=dot_product,seed=1").mkdir()
    ((word, seed), _) = runs("weights=block=dot_product,seed=1", "seed=1,2")
    assert seen(word, seed).weights == "block=dot_product,seed=1"


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("=3", ["=3", "KEY=VALUE"]),
        ("+=3", ["+=3", "KEY=VALUE"]),
        ("--lr=0.1", ["--lr=0.1", "optim.lr=0.1"]),
        ("--experiment=smoke", ["+experiment=smoke"]),
        ("--weights", ["weights=VALUE"]),
    ],
)
def test_a_word_that_is_no_override_is_refused(word: str, named: list[str]):
    with pytest.raises(UsageError) as caught:
        prepare_words([word])
    assert all(part in str(caught.value) for part in named)


@pytest.mark.parametrize("word", ["--cfg", "job", "--config-dir", "--multirun", "--info", "-cd"])
def test_options_of_hydra_stay_as_they_are(word: str):
    assert prepare_words([word]) == [word]


def test_preparing_words_does_not_load_torch():
    program = "import sys, nlnet.cli.words\nassert 'torch' not in sys.modules\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_tool_writes_to_the_path_as_typed(tmp_path: Path):
    path = "~/it's 1e3 (été), a=b#c.json"
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = tool(
        "describe", "+experiment=smoke", "name=2024_01_02", f"json={path}", cwd=tmp_path,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2024_01_02: ")
    assert [file.name for file in tmp_path.iterdir()] == [path.removeprefix("~/")]
