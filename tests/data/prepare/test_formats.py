"""Each data set from small annotation files in its official form, without videos that decode."""

import csv
import json
import re
from pathlib import Path

import pytest

from nlnet.data.index.read import read_index
from nlnet.data.prepare.data_set import DataFolder, DataSet, split_of
from nlnet.data.prepare.formats.all import DATA_SETS
from nlnet.errors import UserError

Listed = dict[str, list[tuple[str | None, tuple[str, ...]]]]


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


def listed(data: DataSet, root: Path) -> Listed:
    """The path below the root and the labels of each entry, of each split."""
    return {
        split: [(e.path and e.path.relative_to(root).as_posix(), e.labels) for e in each.entries]
        for split, each in data.splits.items()
    }


KINETICS = "label,youtube_id,time_start,time_end,split,is_cc\n"
SSV2 = {"template": "Holding [something]", "placeholders": ["cup"], "label": "Holding cup"}
# Annotation files, videos, splits and classes of each data set.
CASES: dict[str, tuple[dict[str, str], list[str], Listed, tuple[str, ...] | None]] = {
    "folder": (
        {},
        ["train/run/a.mp4", "train/walk/x/y/b.MTS", "validation/run/c.ogv"],
        {
            "train": [("train/run/a.mp4", ("run",)), ("train/walk/x/y/b.MTS", ("walk",))],
            "val": [("validation/run/c.ogv", ("run",))],
        },
        ("run", "walk"),
    ),
    "list": (
        {"train.csv": 'path,label\n"a,1.mp4",play guitar\nb,run\n', "val.txt": "v/c.mp4\trun\n"},
        ["a,1.mp4", "b.mp4", "v/c.mp4"],
        {
            "train": [("a,1.mp4", ("play guitar",)), ("b.mp4", ("run",))],
            "val": [("v/c.mp4", ("run",))],
        },
        ("play guitar", "run"),
    ),
    "kinetics400": (
        {
            "train.csv": KINETICS
            + '"eating, cake",aaaaaaaaaaa,3,13,train,0\nrun,-b,0,10,train,0\n',
            "validate.csv": KINETICS + "run,gone,0,10,validate,0\n",
        },
        ["x/eating, cake/aaaaaaaaaaa_000003_000013.mp4", "x/-b.mkv"],
        {
            "train": [
                ("x/eating, cake/aaaaaaaaaaa_000003_000013.mp4", ("eating, cake",)),
                ("x/-b.mkv", ("run",)),
            ],
            "val": [(None, ("run",))],
        },
        ("eating, cake", "run"),
    ),
    "kinetics600": (
        {"annotations/all.csv": KINETICS + "run,a,0,10,train,0\nwalk,b,0,10,validate,0\n"},
        ["a_000000_000010.mp4", "b_000000_000010.mp4"],
        {
            "train": [("a_000000_000010.mp4", ("run",))],
            "val": [("b_000000_000010.mp4", ("walk",))],
        },
        ("run", "walk"),
    ),
    "kinetics700": (
        {
            "train.csv": "label,youtube_id,time_start,time_end,split\nrun,a,0,10,train\n",
            "test.csv": "youtube_id,time_start,time_end,split\nb,0,10,test\n",
        },
        ["a_000000_000010.mp4", "b_000000_000010.mp4"],
        {"test": [("b_000000_000010.mp4", ())], "train": [("a_000000_000010.mp4", ("run",))]},
        ("run",),
    ),
    "ssv2": (
        {
            "something-something-v2-train.json": json.dumps([{"id": "10", **SSV2}]),
            "something-something-v2-test.json": json.dumps([{"id": "11"}]),
            "something-something-v2-labels.json": json.dumps(
                {"Holding something": "1", "Approaching something": "0"}
            ),
        },
        ["20bn/10.webm", "20bn/11.webm"],
        {"test": [("20bn/11.webm", ())], "train": [("20bn/10.webm", ("Holding something",))]},
        ("Approaching something", "Holding something"),
    ),
    "ucf101": (
        {
            "ucfTrainTestlist/classInd.txt": "1 Archery\n2 HandstandPushups\n",
            "ucfTrainTestlist/trainlist01.txt": "Archery/v_Archery_g08_c01.avi 1\n",
            "ucfTrainTestlist/testlist01.txt": "HandstandPushups/v_HandStandPushups_g01_c01.avi\n",
            "ucfTrainTestlist/trainlist02.txt": "Nothing/x.avi 7\n",
        },
        ["Archery/v_Archery_g08_c01.avi", "HandstandPushups/v_HandstandPushups_g01_c01.avi"],
        {
            "train": [("Archery/v_Archery_g08_c01.avi", ("Archery",))],
            "test": [("HandstandPushups/v_HandstandPushups_g01_c01.avi", ("HandstandPushups",))],
        },
        ("Archery", "HandstandPushups"),
    ),
    "hmdb51": (
        {
            "splits/walk_test_split1.txt": "a b.avi 1 \nc.avi 2 \nd.avi 0 \n",
            "splits/run_test_split1.txt": "e.avi 2 \n",
            "splits/run_test_split2.txt": "x.avi 3\n",
        },
        ["walk/a b.avi", "walk/c.avi", "walk/d.avi", "run/e.avi", "walk/e.avi"],
        {
            "train": [("walk/a b.avi", ("walk",))],
            "test": [("run/e.avi", ("run",)), ("walk/c.avi", ("walk",))],
        },
        ("run", "walk"),
    ),
    "charades": (
        {
            "Charades_v1_train.csv": 'id,actions,length\nA,"c001 0 1;c000 2 3.5",4\nB,,1\n',
            "Charades_v1_test.csv": "id,actions,length\nC,c001 0 1,2\n",
            "Charades_v1_classes.txt": "c000 Hold clothes\nc001 Put clothes\n",
        },
        ["Charades_v1_480/A.mp4", "Charades_v1_480/B.mp4"],
        {
            "test": [(None, ("c001",))],
            "train": [("Charades_v1_480/A.mp4", ("c001", "c000")), ("Charades_v1_480/B.mp4", ())],
        },
        ("c000 Hold clothes", "c001 Put clothes"),
    ),
    "diving48": (
        {
            "Diving48_V2_train.json": json.dumps(
                [{"vid_name": "x_00001", "label": 1, "start_frame": 0, "end_frame": 9}]
            ),
            "Diving48_V2_test.json": json.dumps([{"vid_name": "y_00000", "label": 0}]),
            "Diving48_vocab.json": json.dumps(
                [["Back", "15som", "05Twis", "FREE"], ["Back", "15som", "NoTwis", "PIKE"]]
            ),
        },
        ["rgb/x_00001.mp4", "rgb/y_00000.mp4"],
        {
            "test": [("rgb/y_00000.mp4", ("Back 15som 05Twis FREE",))],
            "train": [("rgb/x_00001.mp4", ("Back 15som NoTwis PIKE",))],
        },
        ("Back 15som 05Twis FREE", "Back 15som NoTwis PIKE"),
    ),
    "jester": (
        {
            "jester-v1-train.csv": "34870;Drumming Fingers\n",
            "jester-v1-validation.csv": "2;Swiping Left\n",
            "jester-v1-labels.csv": "Swiping Left\nDrumming Fingers\n",
        },
        ["videos/34870.webm", "videos/2.webm"],
        {
            "train": [("videos/34870.webm", ("Drumming Fingers",))],
            "val": [("videos/2.webm", ("Swiping Left",))],
        },
        ("Swiping Left", "Drumming Fingers"),
    ),
}
CASES["jhmdb"] = CASES["hmdb51"]


def test_every_data_set_has_a_case():
    assert CASES.keys() == DATA_SETS.keys()


@pytest.mark.parametrize("name", CASES)
def test_annotations_are_read(name: str, tmp_path: Path):
    files, videos, expected, classes = CASES[name]
    write(tmp_path, files)
    touch(tmp_path, *videos)
    data = DATA_SETS[name](DataFolder(tmp_path, tmp_path))
    assert listed(data, tmp_path) == expected
    assert data.names() == classes


@pytest.mark.parametrize("name", [name for name in CASES if name != "folder"])
def test_absent_annotations_are_one_line(name: str, tmp_path: Path):
    with pytest.raises(UserError, match="--annotations") as caught:
        DATA_SETS[name](DataFolder(tmp_path, tmp_path))
    assert "\n" not in str(caught.value)


def test_the_second_official_split(tmp_path: Path):
    write(tmp_path, {"walk_test_split1.txt": "a.avi 1\n", "walk_test_split2.txt": "a.avi 2\n"})
    touch(tmp_path, "a.avi")
    data = DATA_SETS["hmdb51"](DataFolder(tmp_path, tmp_path, (), 2))
    assert listed(data, tmp_path) == {"test": [("a.avi", ("walk",))]}


@pytest.mark.parametrize("name", ["hmdb51", "ucf101"])
def test_a_file_in_the_folder_of_another_class_is_not_taken(name: str, tmp_path: Path):
    """Names can repeat over the classes: the file of another class would get a wrong label."""
    files, videos, splits, classes = CASES[name]
    write(tmp_path, files)
    assert classes is not None
    moved = {}
    for video in videos:
        path = Path(video)
        other = next(c for c in classes if c.casefold() != path.parent.name.casefold())
        moved[path.stem] = path.parent.with_name(other) / path.name
    touch(tmp_path, *(str(path) for path in moved.values()))
    found = listed(DATA_SETS[name](DataFolder(tmp_path, tmp_path)), tmp_path)
    assert {split: [labels for _, labels in rows] for split, rows in found.items()} == {
        split: [labels for _, labels in rows] for split, rows in splits.items()
    }
    rows = [row for rows in found.values() for row in rows]
    assert any(path is None for path, _ in rows)
    assert all(path is None or Path(path).parent.name == label for path, (label,) in rows)


def test_untrimmed_files_have_the_times_of_their_rows(tmp_path: Path):
    rows = KINETICS + "run,whole,1,2.5,train,0\nrun,part,1,2,train,0\n"
    write(tmp_path, {"train.csv": rows})
    touch(tmp_path, "whole.mp4", "part_000001_000002.mp4")
    (split,) = DATA_SETS["kinetics400"](DataFolder(tmp_path, tmp_path)).splits.values()
    assert [entry.span for entry in split.entries] == [(1.0, 2.5), None]
    (remark,) = read_index(tmp_path, "train.csv").remarks  # training on the CSV itself
    assert "1 of 2 rows" in remark and "tools/prepare.py" in remark


def test_metadata_of_hugging_face(tmp_path: Path):
    write(
        tmp_path,
        {
            "train/metadata.csv": 'file_name,caption,label\na.mp4,"x, y",run\n',
            "validation/metadata.jsonl": '{"file_name": "sub/b.mp4", "label": "walk"}\n',
        },
    )
    touch(tmp_path, "train/a.mp4", "validation/sub/b.mp4")
    data = DATA_SETS["list"](DataFolder(tmp_path, tmp_path))
    assert listed(data, tmp_path) == {
        "train": [("train/a.mp4", ("run",))],
        "val": [("validation/sub/b.mp4", ("walk",))],
    }
    write(tmp_path, {"validation/metadata.jsonl": '{"file_name": "sub/b.mp4"}\n'})
    with pytest.raises(UserError, match=r"metadata\.jsonl line 1"):
        DATA_SETS["list"](DataFolder(tmp_path, tmp_path))


def test_lists_of_mmaction2(tmp_path: Path):
    write(
        tmp_path, {"k_train_list_videos.txt": "run/a.mp4 0\n", "k_val_list_videos.txt": "b.mp4 1\n"}
    )
    touch(tmp_path, "run/a.mp4", "b.mp4")
    data = DATA_SETS["list"](DataFolder(tmp_path, tmp_path))
    assert listed(data, tmp_path) == {"train": [("run/a.mp4", ("0",))], "val": [("b.mp4", ("1",))]}
    assert data.names() == ("0", "1")


def test_names_of_splits():
    assert split_of("kinetics_val_list") == "val" and split_of("TestList") is None
    assert split_of("train_and_test") is None and split_of("something-v2-validation") == "val"


def test_real_gestures_as_folder_and_as_csv(shared_data: Path):
    root = shared_data / "egogestar-small"

    def pairs(name: str) -> dict[str, set[tuple[Path | None, tuple[str, ...]]]]:
        splits = DATA_SETS[name](DataFolder(root, root)).splits
        return {k: {(e.path, e.labels) for e in split.entries} for k, split in splits.items()}

    assert pairs("folder") == pairs("kinetics400")
    assert {k: len(v) for k, v in pairs("folder").items()} == {"train": 135, "val": 41}


@pytest.mark.parametrize("number", [1, 2, 3])
def test_real_jhmdb_through_its_official_splits(number: int, shared_data: Path, tmp_path: Path):
    """The official lists are written from clips.csv, which has the three official splits."""
    root = shared_data / "jhmdb-small"
    with (root / "clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    marks = {"train": "1", "val": "2"}
    texts: dict[str, str] = {}
    for row in rows:
        name = f"{row['label']}_test_split{number}.txt"
        line = f"{row['youtube_id']}.avi {marks[row[f'split{number}']]}\n"
        texts[name] = texts.get(name, "") + line
    write(tmp_path, texts)
    data = DATA_SETS["jhmdb"](DataFolder(tmp_path, root, (), number))
    assert len(data.names()) == 21
    for split, name in (("train", "train"), ("test", "val")):
        found = {(e.name.removesuffix(".avi"), *e.labels) for e in data.splits[split].entries}
        wanted = {(r["youtube_id"], r["label"]) for r in rows if r[f"split{number}"] == name}
        assert found == wanted
        assert all(entry.path is not None for entry in data.splits[split].entries)
        assert not any(re.search(r"\.avi$", str(e.path)) for e in data.splits[split].entries)
