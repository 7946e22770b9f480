"""The training loop: one recipe, one run folder, the same numbers however often it is interrupted."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from equibit import convert, data, recipes
from equibit.data import Dataset
from equibit.errors import InputError, StateError
from equibit.recipes import Recipe
from equibit.training import optimizers, record, schedules
from equibit.training.checkpoint import State, load_into
from equibit.training.device import open_accelerator
from equibit.training.evaluate import evaluate
from equibit.training.folder import RunFolder
from equibit.training.schedules import Position
from equibit.training.seeds import generator, stream_seed

Row = dict[str, Any]


def train(
    recipe: Recipe,
    out: str | os.PathLike[str],
    resume: bool = False,
    on_epoch: Callable[[Row], object] | None = None,
) -> dict[str, Any]:
    """Trains a recipe and keeps everything in a run folder.

    Args:
        recipe: What to train.
        out: The run folder; created, and never overwritten.
        resume: Continue the run in `out` (on the CPU to the same numbers, bit for bit), or start it there.
        on_epoch: Called with the row of metrics after each epoch, when it is safely on disk.

    Returns:
        The content of `summary.json`.

    Raises:
        InputError: The folder holds another run, or recipe and data set do not fit.
        StateError: The training diverged (the last good state is kept), or another process trains in `out`.
    """
    folder = RunFolder(Path(out))
    with folder.lock():
        dataset = data.load(recipe.data.name)
        recipe = complete(recipe, dataset)
        state = folder.begin(recipe, resume)
        if state.epoch == recipe.train.epochs and folder.summary.exists():
            return folder.read_summary()
        training = Training(recipe, dataset)
        with torch.random.fork_rng(devices=training.cuda_devices):
            training.restore(state, folder.state)
            folder.write_metrics(state.history)
            return _run(training, folder, state, on_epoch)


def complete(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The recipe with what it leaves to the data set: image shape, mean and std.

    Raises:
        InputError: The model's input or classes are not those of the data set.
    """
    shape, classes = dataset.in_shape, len(dataset.classes)
    if recipe.model.in_shape not in (None, shape):
        raise InputError(f"model.in_shape is {recipe.model.in_shape}, but images of {dataset.name} are {shape}.")
    if recipe.model.num_classes != classes:
        raise InputError(f"model.num_classes is {recipe.model.num_classes}, but {dataset.name} has {classes} classes.")
    mean = dataset.mean if recipe.data.mean is None else recipe.data.mean
    std = dataset.std if recipe.data.std is None else recipe.data.std
    model = replace(recipe.model, in_shape=shape)
    return replace(recipe, model=model, data=replace(recipe.data, mean=tuple(mean), std=tuple(std)))


def _run(training: "Training", folder: RunFolder, state: State, on_epoch: Callable[[Row], object] | None) -> Row:
    history = list(state.history)
    for epoch in range(state.epoch, training.recipe.train.epochs):
        try:
            history.append(training.run_epoch(epoch))
        except StateError as error:
            kept = f"The state after epoch {epoch} is kept in {folder.state}" if epoch else "No epoch was finished"
            raise StateError(f"{error} {kept}.") from None
        folder.save_epoch(training.state(history))
        if on_epoch is not None:
            on_epoch(history[-1])
    device = str(training.accelerator.device)
    folder.write_summary(record.summarize(training.recipe, training.model, history, device, training.commit))
    return folder.read_summary()


class Training:
    """A training under way: the network, its optimiser and the data on the device."""

    def __init__(self, recipe: Recipe, dataset: Dataset) -> None:
        self.recipe = recipe
        self.commit = record.source_commit()  # of the code that runs, not of what the checkout holds at the end
        self.accelerator = open_accelerator(recipe.train)
        device = self.accelerator.device
        self.cuda_devices = [device.index or 0] if device.type == "cuda" else []
        self.train_images, self.train_labels = (
            dataset.train_images.to(device),
            dataset.train_labels.to(device),
        )
        self.test_images, self.test_labels = dataset.test_images.to(device), dataset.test_labels.to(device)
        self.mean, self.std = (torch.tensor(v, device=device) for v in (recipe.data.mean, recipe.data.std))
        with torch.random.fork_rng(devices=self.cuda_devices):
            torch.manual_seed(stream_seed(recipe.train.seed, "init"))
            self.model: nn.Module = recipes.build(recipe).to(device)
        if recipe.train.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.forward: Callable[[Tensor], Tensor] = torch.compile(self.model) if recipe.train.compile else self.model
        self.optimizer = optimizers.create(recipe.optimizer, self.model)
        self.bits = self._binary_weights()

    def state(self, history: list[Row]) -> State:
        """Everything to go on from here."""
        return State(history, self.model.state_dict(), optimizers.state_by_name(self.optimizer, self.model))

    def restore(self, state: State, source: Path) -> None:
        """Goes back to the state read from `source`; an empty one changes nothing."""
        if state.epoch:
            load_into(self.model, state.model, source)
            optimizers.restore(self.optimizer, self.model, state.optimizer)
            self.bits = self._binary_weights()

    def run_epoch(self, epoch: int) -> Row:
        """Trains one epoch, scores the whole test set and gives the row of metrics; `lr` is its first step's.

        Raises:
            StateError: The loss or a parameter is no longer finite.
        """
        start = time.perf_counter()
        loss, accuracy = self._train_epoch(epoch)
        self._require_finite(epoch, loss)
        test = evaluate(
            self.model, self.test_images, self.test_labels, self.mean, self.std, self.recipe.data.batch_size
        )
        before, self.bits = self.bits, self._binary_weights()
        return {
            "epoch": epoch + 1,
            "lr": self._lr(Position(epoch, 0, self._steps)),
            "train_loss": loss,
            "train_accuracy": accuracy,
            "test_loss": test.loss,
            "test_accuracy": test.accuracy,
            "test_n": test.n,
            **record.bit_statistics(before, self.bits),
            "seconds": time.perf_counter() - start,
        }

    @property
    def _batch_size(self) -> int:
        wanted: int = self.recipe.data.batch_size
        return min(wanted, len(self.train_images))

    @property
    def _steps(self) -> int:
        """Steps per epoch. The incomplete last batch is left out; the order, so the images in it, change."""
        return len(self.train_images) // self._batch_size

    def _lr(self, position: Position) -> float:
        base: float = self.recipe.optimizer.lr
        return base * schedules.lr_factor(self.recipe.schedule, self.recipe.train.epochs, position)

    def _train_epoch(self, epoch: int) -> tuple[float, float]:
        """Mean loss and accuracy over the epoch's training batches, summed on the device."""
        seed, device = self.recipe.train.seed, self.accelerator.device
        torch.manual_seed(stream_seed(seed, "layers", epoch))  # dropout
        augmentation = generator(seed, "augment", epoch, device)
        order = torch.randperm(len(self.train_images), generator=generator(seed, "order", epoch)).to(device)
        loss = torch.zeros((), dtype=torch.float64, device=device)
        correct = torch.zeros((), dtype=torch.int64, device=device)
        self.model.train()
        for step in range(self._steps):
            index = order[step * self._batch_size : (step + 1) * self._batch_size]  # (batch,)
            images = data.augment(self.train_images[index], self.recipe.data.augment, augmentation)
            batch_loss, batch_correct = self._step(Position(epoch, step, self._steps), images, self.train_labels[index])
            loss += batch_loss
            correct += batch_correct
        return float(loss) / self._steps, int(correct) / (self._steps * self._batch_size)

    def _step(self, position: Position, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """One step on uint8 images (batch, channels, height, width): its loss and correct answers."""
        recipe = self.recipe
        x = data.normalize(images, self.mean, self.std)
        if recipe.train.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        convert.advance(self.model, schedules.method_progress(recipe.schedule, recipe.train.epochs, position))
        optimizers.set_lr(self.optimizer, self._lr(position))
        with self.accelerator.autocast():
            logits = self.forward(x).float()  # (batch, classes)
            loss = cross_entropy(logits, labels, label_smoothing=recipe.train.label_smoothing)
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        self.optimizer.step()
        return loss.detach(), (logits.argmax(dim=1) == labels).sum()

    def _binary_weights(self) -> dict[str, Tensor]:
        if self.recipe.method is None:
            return {}
        return {name: w.to(torch.int8) for name, w in convert.binary_weights(self.model).items()}

    def _require_finite(self, epoch: int, loss: float) -> None:
        """Once per epoch, because every check waits for the device."""
        broken = [name for name, p in self.model.named_parameters() if not bool(p.isfinite().all())]
        if broken or not math.isfinite(loss):
            layer = broken[0].removesuffix(".original").replace(".parametrizations", "") if broken else ""
            where = f" and {layer!r} holds NaN or infinite values" if broken else ""
            raise StateError(
                f"the training diverged in epoch {epoch + 1}: its loss is {loss}{where}. Try a lower "
                f"optimizer.lr (now {self.recipe.optimizer.lr:g}) or a longer schedule.warmup_epochs "
                f"(now {self.recipe.schedule.warmup_epochs:g})."
            )
