"""What Hydra's grammar makes of a value, and the quotes that keep a text as it was typed."""

import pytest

from nlnet.cli.quoting import split_choices, unquoted


@pytest.mark.parametrize(
    ("value", "choices"),
    [
        ("a", ["a"]),
        (" a ", [" a "]),
        ("a, b,c ", ["a", "b", "c"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ('"a\\",b",c', ['"a\\",b"', "c"]),
        (r"a\,b,c", [r"a\,b", "c"]),
        ("my (1,2),c", ["my (1,2)", "c"]),
        ("{x},[y,z]", ["{x}", "[y,z]"]),
        ("it's,b's", ["it's", "b's"]),  # apostrophes within names
        ("a(1,b", ["a(1", "b"]),  # a bracket without its partner
    ],
)
def test_commas_outside_quotes_and_brackets_separate_choices(value: str, choices: list[str]):
    assert split_choices(value) == choices


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ('"all.csv#val"', "all.csv#val"),
        ("'it\\'s'", "it's"),
        (r"my\ videos\,2", "my videos,2"),  # as Hydra writes the words of the runs of a sweep
        ("plain", "plain"),
        ("0.10", "0.10"),
        ("[1,2]", "[1,2]"),
        ("a=b", "a=b"),
        ("a,b", "a,b"),
    ],
)
def test_the_text_of_a_value_has_no_quotes_and_escapes(value: str, text: str):
    assert unquoted(value) == text
