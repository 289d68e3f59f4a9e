"""Detection of bad losses (NaN, infinite, spikes), and the steps skipped for them."""

import math
import statistics

from infra import storage
from infra.log import logger
from ray_jobs.training.checkpoints import TrainState
from ray_jobs.training.config import BadLossConfig
from ray_jobs.training.ranks import any_rank

STOPPED = "stopped.json"
SKIPPED = "skipped.json"


class BadLoss(Exception):
    """A loss that the run's policy does not let pass; every rank raises it at the same step."""

    def __init__(self, step: int, reason: str) -> None:
        super().__init__(reason)
        self.step, self.reason = step, reason


def check(loss: float, stage: str, train_state: TrainState, policy: BadLossConfig) -> None:
    """Raise BadLoss for a loss that is not finite or a spike; else add it to the recent losses.

    Args:
        loss: the mean over all ranks, so that they all raise or none does.
        stage: the stage's name.
        train_state: where the run is, the step not yet counted.
        policy: what is bad.
    """
    where = f"the loss of step {train_state.step + 1} (stage {stage})"
    if not math.isfinite(loss):
        raise BadLoss(train_state.step, f"{where} is not finite")
    if policy.spike_ratio and len(train_state.losses) == policy.spike_window:
        usual = statistics.median(train_state.losses)
        if loss > policy.spike_ratio * usual:
            times = f"{loss / usual:.1f} times the usual {usual:.4g}"
            raise BadLoss(train_state.step, f"{where} is {loss:.4g}, {times}")
    train_state.losses = [*train_state.losses, loss][-policy.spike_window :]


class Skipped:
    """The steps that are passed over, known to all ranks and written down by the first."""

    def __init__(self, output: str, policy: BadLossConfig, rank: int) -> None:
        self._output, self._policy, self._rank = output, policy, rank
        uri = storage.join(output, SKIPPED)
        known = storage.read_json(uri) if storage.exists(uri) else {}
        self.steps: dict[int, str] = {int(step): reason for step, reason in known.items()}

    def add(self, bad: BadLoss) -> bool:
        """Take in a bad step, and return whether the run goes on."""
        policy = self._policy
        go_on = policy.policy == "skip" and len(self.steps) < policy.most_skipped
        if go_on:
            self.steps[bad.step] = bad.reason
        if self._rank == 0:
            logger.warning(f"{bad.reason}; {'going back to pass over it' if go_on else 'stopping'}")
            if go_on:
                storage.write_json(storage.join(self._output, SKIPPED), self.steps)
            else:
                stopped = {"step": bad.step, "reason": bad.reason}
                storage.write_json(storage.join(self._output, STOPPED), stopped)
        any_rank(False)  # wait until it is written
        return go_on
