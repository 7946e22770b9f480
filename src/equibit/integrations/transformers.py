"""The schedules of the methods under the `Trainer` of Hugging Face Transformers; extra `transformers`."""

from typing import Any

from torch import nn

from equibit.convert import advance
from equibit.errors import DependencyError

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ModuleNotFoundError as error:
    raise DependencyError(f"{error}: install it with `pip install 'equibit[transformers]'`.") from error


class AdvanceCallback(TrainerCallback):  # type: ignore[misc]
    """Calls `equibit.advance(model, step / total steps)` before every training step.

    A step is one of the optimiser, whatever the number of batches whose gradients it accumulates. The steps of a
    resumed training count on. Use: `Trainer(model, args, callbacks=[AdvanceCallback()], ...)`.
    """

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, model: nn.Module, **_: Any
    ) -> None:
        """Advances before the first batch of a step."""
        advance(model, state.global_step / state.max_steps)
