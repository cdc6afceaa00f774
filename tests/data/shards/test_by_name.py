"""Names of videos in shards, as predictions.csv has them, work as paths."""

from pathlib import Path

import numpy as np
import pytest

from nlnet.data.decoding.opening import open_video
from nlnet.data.decoding.reader import DecodeError
from nlnet.data.shards.by_name import is_present
from nlnet.recognizer.inputs import open_reader, open_stream
from nlnet.report.previews import preview
from tests.data.shards.conftest import Both


def test_a_name_opens_the_video(both: Both):
    for i in range(len(both.files)):
        name = both.shards.path(i)
        with open_video(both.files.path(i)) as expected, open_reader(str(name), 1) as found:
            assert np.array_equal(found.read([0, 20]), expected.read([0, 20]))
            assert found.path == name and is_present(name)
    with open_stream(name) as stream, open_stream(both.files.path(i)) as other:
        for one, two in zip(stream, other, strict=True):
            assert np.array_equal(one.pixels(), two.pixels())
    assert preview(name).uri is not None


def test_other_names_are_faults(copied: Path):
    (copied / "no.tar").write_text("no tar file " * 100)
    for name, cause in {
        "train-000000.tar/nothing.mp4": "has no such video",
        "no.tar/0.mp4": "has no such video",
        "gone.tar/0.mp4": "No such file",
    }.items():
        with pytest.raises(DecodeError, match=cause) as error:
            open_video(copied / name)
        assert str(copied / name) in str(error.value)
    assert not is_present(copied / "gone.tar/0.mp4")
