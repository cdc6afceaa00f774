"""The page of the doctor: what failed, what to do, and nothing private."""

from pathlib import Path

import pytest

from nlnet.jobs.doctor.findings import Finding, Section, as_json, failed, page

GOOD = Finding("python", "3.11")
NOTE = Finding("slurm", "lacks one", 'pip install "nlnet[slurm]"')
BAD = Finding("video", "no frame", "install PyAV", failed=True)


def test_the_page_marks_what_failed_and_says_what_to_do():
    sections = [Section("versions", [GOOD, NOTE]), Section("self-test", [BAD])]
    lines = page(sections).splitlines()
    assert lines[0] == "nlnet doctor: failed: video"
    assert "   python  3.11" in lines and " - slurm   lacks one" in lines
    assert lines[lines.index(" ! video  no frame") + 1].strip() == "-> install PyAV"
    assert failed(sections) == [BAD]
    rows = as_json(sections)
    assert [row["status"] for section in rows.values() for row in section] == ["ok", "note", "fail"]
    assert page([Section("versions", [GOOD, NOTE])]).startswith("nlnet doctor: everything")


def test_the_page_holds_no_private_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    home = tmp_path / "home" / "ada"
    work = home / "secret"
    work.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    section = Section("s", [Finding("f", f"{work}/a.py and {home}/lib/b.py", f"see {home}")])
    text = page([section]) + str(as_json([section]))
    assert "ada" not in text and "secret" not in text
    assert "./a.py and ~/lib/b.py" in text
