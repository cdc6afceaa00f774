"""Train on one batch, to see whether a network can learn at all."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from nlnet.clip import ClipBatch
from nlnet.runs.logger import RunLogger
from nlnet.trainer.bad_steps import refuse_step
from nlnet.trainer.preemption import StopRequest
from nlnet.trainer.prepare import set_training_mode
from nlnet.trainer.settings import LoopSettings
from nlnet.trainer.state import TrainState
from nlnet.trainer.step import train_step

LINES = 10  # progress lines of a run


class _Overfit(NamedTuple):
    """The result of the training on one batch, over all ranks."""

    steps: int  # that were made
    right: int  # clips whose best class was right in the last step
    clips: int
    first_loss: float
    loss: float  # of the last step

    @property
    def learned(self) -> bool:
        """Whether all clips were right."""
        return self.right == self.clips


def overfit(
    state: TrainState,
    network: nn.Module,
    settings: LoopSettings,
    micro_batches: Sequence[ClipBatch],
    *,
    logger: RunLogger,
) -> _Overfit:
    """Repeat one step until all of its clips are right in training mode, or the steps are used up.

    Args:
        state: is changed
        network: `state.model`, possibly compiled or wrapped for several ranks
        settings: how to train; total_steps is the largest number of steps
        micro_batches: of this rank
        logger: shows the run

    Raises:
        UserError: the loss is not finite.
        Preempted: the run was asked to stop.
        OutOfTime: the time limit is reached.
    """
    progress, every = state.progress, max(settings.total_steps // LINES, 1)
    set_training_mode(network, state.model, settings.freeze)
    first_loss, result = 0.0, None
    with StopRequest(settings.max_minutes) as stop:
        for step in range(settings.total_steps):
            lr = settings.lr * settings.schedule(step)
            sums, norm = train_step(state, network, settings, micro_batches, lr=lr, stop=stop)
            if sums.faults:
                refuse_step(progress, sums, norm, settings.remedies.not_finite)
            progress.step += 1
            progress.global_step += 1
            loss = sums.loss / sums.clips
            first_loss = loss if step == 0 else first_loss
            result = _Overfit(step + 1, round(sums.top1), round(sums.clips), first_loss, loss)
            if result.learned or result.steps % every == 0:
                logger.say(
                    f"step {result.steps}/{settings.total_steps}  loss {loss:.4f}  "
                    f"{result.right} of {result.clips} clips right"
                )
            if result.learned:
                break
            if sums.stop:
                reason, stopped = stop.agree()
                logger.say(f"{reason} after step {result.steps}")
                raise stopped
    assert result is not None, "a run has one step or more"
    return result
