"""The schedules of the methods under a Lightning `Trainer`; extra `lightning`."""

from typing import Any

from equibit.convert import advance
from equibit.errors import DependencyError, StateError

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ModuleNotFoundError:
    try:
        from pytorch_lightning import Callback, LightningModule, Trainer
    except ModuleNotFoundError as error:
        raise DependencyError(f"{error}: install Lightning with `pip install 'equibit[lightning]'`.") from error


class AdvanceCallback(Callback):  # type: ignore[misc]
    """Calls `equibit.advance(module, step / total steps)` before every training step.

    A step is one of the optimiser, whatever the number of batches whose gradients it accumulates. The steps of a
    resumed fit count on. Give it to the trainer in a list: `Trainer(callbacks=[AdvanceCallback()])`.

    Raises:
        StateError: At the start of a fit: the trainer does not know its total number of steps, or the module
            optimises by hand and may have several optimisers, so that the trainer's steps are not those of the model.
    """

    def __init__(self) -> None:
        self.total = 0
        self.last = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reads the total number of steps."""
        if not pl_module.automatic_optimization:
            raise StateError(
                "AdvanceCallback needs automatic optimisation; in a training_step that optimises by hand call "
                "equibit.advance(model, step / total) yourself."
            )
        total = trainer.estimated_stepping_batches
        if not 0 < total < float("inf"):
            raise StateError("AdvanceCallback needs the total number of steps; give the Trainer max_steps.")
        self.total, self.last = int(total), -1

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Advances before the first batch of a step."""
        if trainer.global_step != self.last:
            self.last = trainer.global_step
            advance(pl_module, self.last / self.total)
