import os
import signal
import time

import pytest

from nlnet.data.prepare.processes import Lost, map_in_processes


def work(item: int) -> int:
    """Square a number; -1 kills the process, -2 ends it, -3 hangs."""
    if item == -1:
        os.kill(os.getpid(), signal.SIGKILL)
    if item == -2:
        os._exit(3)
    if item == -3:
        time.sleep(60)
    return item * item


@pytest.mark.parametrize("num_workers", [0, 2])
def test_each_item_has_its_result(num_workers: int):
    items = list(range(20))
    results = dict(map_in_processes(work, items, num_workers=num_workers, time_limit=60))
    assert results == {i: i * i for i in items}


def test_a_process_that_dies_or_hangs_loses_one_item():
    items = [1, -1, 2, -2, 3, -3, 4, 5]
    start = time.monotonic()
    results = dict(map_in_processes(work, items, num_workers=2, time_limit=3))
    assert time.monotonic() - start < 30
    lost = {number for number, result in results.items() if isinstance(result, Lost)}
    assert lost == {1, 3, 5}
    assert {n: r for n, r in results.items() if n not in lost} == {
        n: items[n] ** 2 for n in range(len(items)) if n not in lost
    }
    assert "-9" in results[1].cause and "3 seconds" in results[5].cause


def test_no_items_and_more_workers_than_items():
    assert list(map_in_processes(work, [], num_workers=2, time_limit=1)) == []
    assert list(map_in_processes(work, [7], num_workers=4, time_limit=60)) == [(0, 49)]
