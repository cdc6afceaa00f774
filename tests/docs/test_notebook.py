"""The notebook runs from top to bottom, and what it says about its results is true."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.test_documentation import DOCS, ROOT

NOTEBOOK = DOCS / "notebook.ipynb"


def test_the_notebook_is_stored_without_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = tmp_path / "docs"
    folder.mkdir()
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}}).execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )
    assert "error:" not in printed and "Traceback" not in printed, printed
    found = re.search(r"top-1 before ([\d.]+) %, after ([\d.]+) %", printed)
    assert found is not None
    before, after = map(float, found.groups())
    # 128 videos: the standard error of the difference is about 4 points.
    assert before + 5 < after
    for path in ("comparison.html", "outputs/attention/attention.png"):
        assert (folder / path).is_file()
