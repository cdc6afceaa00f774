"""Where ranks meet: nothing that an earlier attempt left in the store of an agent is read."""

import threading
from datetime import timedelta

import pytest
import torch.distributed as dist

from nlnet.distributed.meeting import agree_on_prefix

SOON = timedelta(seconds=20)


def meet_all(store: dist.Store, world_size: int) -> list[str]:
    found = [""] * world_size

    def join(rank: int) -> None:
        found[rank] = agree_on_prefix(store, rank, world_size, SOON)

    threads = [threading.Thread(target=join, args=(i,)) for i in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_every_attempt_has_a_prefix_of_its_own(world_size: int):
    store = dist.HashStore()
    attempts = [meet_all(store, world_size) for _ in range(3)]
    assert all(len(set(found)) == 1 and found[0] for found in attempts)
    assert len({found[0] for found in attempts}) == 3


def test_a_rank_of_a_dead_attempt_is_not_taken_for_one_of_this():
    """It asked and was killed: rank 0 waits for the rank that asks now."""
    store = dist.HashStore()
    store.set("nlnet/asks/1", "a number of the dead rank")
    with pytest.raises(TimeoutError, match=r"the ranks 1 did not join within 0\.2 s"):
        agree_on_prefix(store, 0, 2, timedelta(seconds=0.2))
    assert len(set(meet_all(store, 2))) == 1
