"""tools/train.py in which the loss of one step is NaN, and which a signal stops once before it.

    python faulty_train.py FAULTY_STEP STOP_STEP WORD...

Both steps count from 1; a STOP_STEP of 0 is none.
"""

import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

import nlnet.trainer.loop
import nlnet.trainer.step

ROOT = Path(__file__).parents[2]
faulty, stop = int(sys.argv[1]), int(sys.argv[2])
train_step, loss = nlnet.trainer.loop.train_step, nlnet.trainer.step.classification_loss


def step_with_fault(state: Any, *args: Any, **kwargs: Any) -> Any:
    step = state.progress.global_step + 1
    mark = Path("stopped")
    if step == stop and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGTERM)
    factor = float("nan") if step == faulty else 1.0
    nlnet.trainer.step.classification_loss = lambda *a, **k: factor * loss(*a, **k)
    return train_step(state, *args, **kwargs)


if __name__ == "__main__":
    nlnet.trainer.loop.train_step = step_with_fault
    tool = str(ROOT / "tools" / "train.py")
    sys.argv = [tool, *sys.argv[3:]]
    sys.path.insert(0, str(ROOT / "tools"))
    runpy.run_path(tool, run_name="__main__")
