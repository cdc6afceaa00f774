"""torchcodec gives the frames of PyAV. It runs in another process, with the FFmpeg of PyAV."""

import os
import re
import subprocess
import sys
from pathlib import Path

import av
import pytest

from tests.data.decoding.videos import FORMATS, write_moving_video

pytest.importorskip("torchcodec")

COMPARE = """
import sys
from pathlib import Path
import numpy as np
from nlnet.data.decoding import torchcodec
from nlnet.data.decoding.opening import choose_decoder
from nlnet.data.decoding.pyav import PyAVReader
from nlnet.data.decoding.reader import DecodeError

Reader = choose_decoder("torchcodec")
assert Reader is torchcodec.TorchcodecReader
for name in sys.argv[1:]:
    try:
        plain = PyAVReader(Path(name))
    except DecodeError as error:
        try:
            Reader(Path(name))
        except DecodeError as other:
            assert other.cause == error.cause, name
            continue
        raise AssertionError(name)
    with plain, Reader(Path(name)) as reader:
        assert reader.num_frames == plain.num_frames
        wanted = np.unique(np.random.default_rng(0).integers(0, plain.num_frames, 20))
        given = 0
        if reader._index is not None:
            times = reader._declared_times(wanted.tolist())
            given = sum(1 for _ in reader._decoded_frames(Path(name), wanted.tolist(), times))
            assert given == len(wanted), f"{name}: PyAV reads some frames"
        try:
            expected = plain.read(wanted)
        except DecodeError:  # damage, which torchcodec does not report
            continue
        found = reader.read(wanted)
        assert found.shape == expected.shape, name
        difference = np.abs(found.astype(int) - expected).mean()
        assert difference <= 2, f"{name}: {difference}"
        print(Path(name).name, given, difference)
"""
ABSENT = """
import sys
sys.modules["torchcodec"] = None
from nlnet.data.decoding.opening import choose_decoder
from nlnet.errors import UserError
try:
    choose_decoder("torchcodec")
except UserError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def ffmpeg(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which the libraries in PyAV's wheel have their usual names.

    A PyAV that was built on this machine uses the libraries of the system, which have them.
    """
    libraries = Path(av.__file__).parents[1] / "av.libs"
    if not libraries.is_dir():
        return dict(os.environ)
    folder = tmp_path_factory.mktemp("ffmpeg")
    for path in libraries.glob("lib[as][vw]*"):
        usual = re.sub(r"-[0-9a-f]+\.so\.(\d+).*", r".so.\1", path.name)
        if not (folder / usual).exists():
            (folder / usual).symlink_to(path)
    return os.environ | {"LD_LIBRARY_PATH": f"{folder}:{libraries}"}


def run(program: str, env: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_frames_are_those_of_pyav(ffmpeg: dict[str, str], tmp_path: Path):
    files = []
    for name, (codec, options) in FORMATS.items():
        files.append(str(write_moving_video(tmp_path / name, codec=codec, options=options)))
    found = run(COMPARE, ffmpeg, *files)
    assert len(found.splitlines()) == len(files)
    given = [int(line.split()[-2]) for line in found.splitlines()]
    assert sum(count > 0 for count in given) == 5  # H.264, HEVC and VP9 in MP4 and Matroska


@pytest.mark.slow
def test_the_frames_of_real_files_are_those_of_pyav(ffmpeg: dict[str, str], shared_data: Path):
    files = sorted(str(path) for path in (shared_data / "clips").glob("*/*"))
    assert len(run(COMPARE, ffmpeg, *files).splitlines()) > 35


def test_its_absence_is_one_line():
    line = run(ABSENT, dict(os.environ))
    assert re.fullmatch(r'torchcodec [^\n]+; pip install "nlnet\[torchcodec\]"[^\n]+\n', line)
