"""Learning rate and method progress as pure functions of the position in training.

A position is measured in epochs: epoch 2 (counted from 0), step 3 of 10, is 2.3. Nothing here has state, so a
resumed training needs none.
"""

import math
from dataclasses import dataclass

from equibit.recipes.schema import Schedule


@dataclass(frozen=True)
class Position:
    """A training step: `epoch` and `step` count from 0."""

    epoch: int
    step: int
    steps_per_epoch: int

    def at(self, unit: str) -> float:
        """Epochs done before this step; whole epochs only with unit `epoch`."""
        return self.epoch + (self.step / self.steps_per_epoch if unit == "step" else 0)


def lr_factor(schedule: Schedule, epochs: int, position: Position) -> float:
    """What the base learning rate is multiplied with at a step."""
    done = position.at(schedule.update)
    return _warmup(schedule, done, position) * _decay(schedule, epochs, done)


def method_progress(schedule: Schedule, epochs: int, position: Position) -> float:
    """What `equibit.advance` gets before a step: step / total, or floor(epoch) / epochs."""
    return position.at(schedule.method) / epochs


def _warmup(schedule: Schedule, done: float, position: Position) -> float:
    """A straight line that reaches 1 at the last step (or epoch) of the warm-up."""
    if done >= schedule.warmup_epochs:
        return 1.0
    unit: float = 1 / position.steps_per_epoch if schedule.update == "step" else 1.0
    reached: float = (done + unit) / schedule.warmup_epochs
    return min(1.0, reached)


def _decay(schedule: Schedule, epochs: int, done: float) -> float:
    if schedule.name == "step":
        return float(schedule.gamma ** sum(done >= milestone for milestone in schedule.milestones))
    if schedule.name == "constant" or done < schedule.warmup_epochs:
        return 1.0
    bounds = (schedule.warmup_epochs, *schedule.milestones, epochs)  # of the cosines; without restarts there is one
    start, end = max(b for b in bounds[:-1] if b <= done), min(b for b in bounds[1:] if b > done)
    share = (done - start) / (end - start)
    return 1 - share if schedule.name == "linear" else 0.5 * (1 + math.cos(math.pi * share))
