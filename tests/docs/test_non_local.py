"""The code of docs/non_local.md runs and prints what the page says."""

import re

import pytest

from tests.test_documentation import DOCS, blocks


def test_the_code_of_the_page_prints_its_comments(capsys: pytest.CaptureFixture[str]):
    examples = list(blocks(DOCS / "non_local.md", "python"))
    assert len(examples) == 2
    for code in examples:
        exec(code, {})
        printed = capsys.readouterr().out.splitlines()
        comments = re.findall(r"^print.*?# (.*)$", code, re.MULTILINE)
        assert len(comments) == len(printed) > 0
        for comment, line in zip(comments, printed, strict=True):
            expected = re.match(r"\([\d, ]+\)|\S+", comment)
            assert expected is not None and expected[0] in line
