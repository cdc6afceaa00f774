"""Where the ranks of one attempt meet: a part of the store that no earlier attempt has used.

The agent of torchrun keeps one store for all attempts. Ranks that were started again would read the
addresses of the ranks that are gone (pytorch issues 135712 and 167288). Therefore rank 0 chooses a
new prefix at each start, and hands it to the ranks that ask for it now.
"""

import os
import time
import uuid
from datetime import timedelta

from torch.distributed import PrefixStore, Store, TCPStore

PAUSE = 0.02  # seconds between two looks for ranks that ask


def meet(rank: int, world_size: int, timeout: timedelta) -> Store:
    """Return a store that only the ranks of this attempt share.

    The address is in MASTER_ADDR and MASTER_PORT. The agent of torchrun serves it if
    TORCHELASTIC_USE_AGENT_STORE is True, else rank 0 does.

    Raises TimeoutError, with the numbers of the missing ranks, on rank 0; DistError elsewhere.
    """
    served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=rank == 0 and not served,
        timeout=timeout,
        wait_for_workers=False,
        multi_tenant=True,
    )
    return PrefixStore(agree_on_prefix(store, rank, world_size, timeout), store)


def agree_on_prefix(store: Store, rank: int, world_size: int, timeout: timedelta) -> str:
    """Return a prefix that is new, and the same on every rank.

    Each rank asks with a number of its own. The answer is below this number, so that a rank never
    takes an answer to an earlier attempt.
    """
    if rank > 0:
        own = uuid.uuid4().hex
        store.set(f"nlnet/asks/{rank}", own)
        prefix = store.get(f"nlnet/answer/{own}").decode()
        store.set(f"{prefix}/here/{rank}", "")
        return prefix
    prefix = f"nlnet/{uuid.uuid4().hex}"
    absent = set(range(1, world_size))
    deadline = time.monotonic() + timeout.total_seconds()
    while absent:
        for other in sorted(absent):
            if store.check([f"nlnet/asks/{other}"]):
                asked = store.get(f"nlnet/asks/{other}").decode()
                store.set(f"nlnet/answer/{asked}", prefix)
        absent = {other for other in absent if not store.check([f"{prefix}/here/{other}"])}
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"the ranks {', '.join(map(str, sorted(absent)))} did not join within"
                f" {timeout.total_seconds():g} s"
            )
        time.sleep(PAUSE if absent else 0)
    return prefix
