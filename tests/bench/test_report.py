"""The facts of the machine and the times of calls in turn."""

import time

from nlnet.bench.report import machine
from nlnet.bench.timing import interleaved


def test_the_machine_names_what_a_figure_depends_on():
    facts = machine()
    assert set(facts) == {"cpu", "cores", "threads", "gpu", "torch", "python", "commit"}
    assert all(facts.values())


def test_calls_are_made_in_turn_and_the_warm_up_is_not_counted():
    made: list[str] = []

    def slow() -> None:
        made.append("slow")
        time.sleep(0.5 if made.count("slow") == 1 else 0.02)

    times = interleaved({"slow": slow, "fast": lambda: made.append("fast")}, repeats=3)
    assert made == ["slow", "fast"] * 4
    assert 0.02 <= times["slow"] < 0.5
    assert times["fast"] < times["slow"]
