"""DDP with a static graph: the same gradients, also with stages that are computed again."""

import json
from pathlib import Path

import pytest

from tests.distributed.conftest import TORCH_PRELUDE

CODE = """
    from nlnet.config import NonLocalConfig, ResNetConfig
    from nlnet.model.build import build_model
    from nlnet.model.speed.checkpointing import save_memory
    from nlnet.trainer.prepare import wrap_for_training
    from torch.nn import functional as F
    cpu, found = torch.device("cpu"), []
    for static_graph, stages in ((False, []), (True, []), (True, ["res2", "res4"])):
        torch.manual_seed(0)
        blocks = NonLocalConfig(res4=[0], zero_init=False)
        model = build_model(ResNetConfig(depth=14, width=4, dropout=0.0, non_local=blocks), 3)
        save_memory(model, lean=True, checkpoint_stages=stages)
        network = wrap_for_training(model, device=cpu, static_graph=static_graph)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        torch.manual_seed(1 + rank())
        for _ in range(3):  # the first step records the graph
            video = torch.randint(0, 256, (2, 3, 4, 32, 32), dtype=torch.uint8)
            optimizer.zero_grad()
            F.cross_entropy(network(video), torch.tensor([0, 2])).backward()
            optimizer.step()
        found.append(torch.cat([p.detach().flatten() for p in model.parameters()]).tolist())
    note(json.dumps(found))
"""


@pytest.mark.slow
def test_a_static_graph_changes_no_weight(ranks, tmp_path: Path):
    """Bit for bit: each sum of two ranks has one order."""
    assert ranks(TORCH_PRELUDE + CODE, 2) == 0
    first, second = (json.loads((tmp_path / str(i)).read_text()) for i in (0, 1))
    assert first == second
    plain, static, checkpointed = first
    assert plain == static
    assert checkpointed == pytest.approx(plain, rel=1e-4, abs=1e-6)
