"""The pictures of attention are those of the network and the video that are part of nlnet."""

import io
from importlib.util import module_from_spec, spec_from_file_location

import numpy as np
import pytest
from PIL import Image

import nlnet
from tests.test_documentation import DOCS

pytestmark = pytest.mark.slow


def test_the_pictures_are_made_by_their_script():
    spec = spec_from_file_location("make_pictures", DOCS / "make_pictures.py")
    assert spec is not None and spec.loader is not None
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    made = script.pictures(nlnet.load("demo", device="cpu"))
    stored = {path.name: path for path in (DOCS / "pictures").iterdir()}
    assert set(made) == set(stored)
    assert sum(path.stat().st_size for path in stored.values()) < 300_000
    for name, data in made.items():
        new, old = (
            np.asarray(Image.open(file).convert("RGB"), dtype=float)
            for file in (io.BytesIO(data), stored[name])
        )
        assert new.shape == old.shape
        # Fonts, and rounding on another processor, may move a few pixels.
        assert np.abs(new - old).mean() < 5, "run python docs/make_pictures.py"
