"""A wrong value of a configuration is reported by its full key, with the values that are right."""

from collections.abc import Callable

import pytest

from nlnet.checks import at_least, odd, one_of, positive, section, triple, within
from nlnet.errors import ArgumentError, UsageError, choose


def test_choose_lists_the_known_values():
    assert choose("depth", 50, {50: "fifty"}) == "fifty"
    with pytest.raises(ArgumentError, match=r"^depth=51 is unknown; choose one of: 14, 26$"):
        choose("depth", 51, {14: 0, 26: 0})


@pytest.mark.parametrize(
    ("prefix", "message"),
    [("model", "model.depth=51 is unknown"), ("", "depth=51 is unknown")],
)
def test_a_section_adds_its_name_to_an_argument(prefix: str, message: str):
    with pytest.raises(UsageError, match=f"^{message}"), section(prefix):
        choose("depth", 51, {14: 0})


def test_a_section_lets_other_errors_through():
    with pytest.raises(ValueError, match=r"^other$"), section("model"):
        raise ValueError("other")


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (lambda value: positive("data.key", value), [1, 0.5], [0, -1]),
        (lambda value: at_least("data.key", value, 2), [2, 3], [1, -1]),
        (lambda value: within("data.key", value, 0, 1), [0, 0.5, 1], [-0.1, 1.1]),
        (lambda value: odd("data.key", value), [[1], [3, 1]], [[], [2], [3, -1]]),
        (lambda value: triple("data.key", value), [[1, 2, 3]], [[1, 2], [1, 0, 2]]),
        (lambda value: triple("data.key", value, least=0), [[0, 0, 0]], [[0, -1, 0]]),
        (lambda value: one_of("data.key", value, {"a": 1}), ["a"], ["b"]),
    ],
)
def test_a_check_names_the_key_and_the_value(
    check: Callable[[object], object], right: list[object], wrong: list[object]
):
    for value in right:
        check(value)
    for value in wrong:
        with pytest.raises(UsageError) as error:
            check(value)
        assert str(error.value).startswith(f"data.key={value} ")
