"""The training loop: one recipe, one run folder, the same numbers however often it is interrupted."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from equibit import data
from equibit.data import Dataset
from equibit.errors import FileError, InputError, StateError
from equibit.recipes import Recipe
from equibit.training import record
from equibit.training.checkpoint import State
from equibit.training.device import open_accelerator
from equibit.training.folder import RunFolder
from equibit.training.steps import Row, Training


def train(
    recipe: Recipe,
    out: str | os.PathLike[str],
    resume: bool = False,
    on_epoch: Callable[[Row], object] | None = None,
) -> Row:
    """Trains a recipe and keeps everything in a run folder.

    Under `torchrun` or `accelerate launch` all processes call this with the same arguments and share the work; the
    first one writes. The batch size is that of all processes together, so their number changes the result by
    rounding only (and dropout draws other masks).

    Args:
        recipe: What to train.
        out: The run folder; created, and never overwritten.
        resume: Continue the run in `out` (on the CPU to the same numbers, bit for bit), or start it there.
        on_epoch: Called with the row of metrics after each epoch, when it is safely on disk; in the first process.

    Returns:
        The content of `summary.json`.

    Raises:
        InputError: The folder holds another run, recipe and data set do not fit, or the batch cannot be divided.
        FileError: A file cannot be written; what was there before is unchanged.
        StateError: The training diverged (the last good state is kept), or another process trains in `out`.
    """
    accelerator = open_accelerator(recipe.train)
    folder = RunFolder(Path(out))
    with folder.lock() if accelerator.is_main_process else nullcontext():
        dataset = data.load(recipe.data.name, **recipe.data.options)
        recipe = complete(recipe, dataset)
        state = _begin(folder, recipe, resume, accelerator)
        if state.epoch == recipe.train.epochs and folder.summary.exists():
            return folder.read_summary()
        training = Training(recipe, dataset, accelerator)
        with torch.random.fork_rng(devices=training.cuda_devices):
            training.restore(state, folder.state)
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


def _begin(folder: RunFolder, recipe: Recipe, resume: bool, accelerator: Accelerator) -> State:
    """The first process opens the folder, then all read where to start."""
    if accelerator.num_processes > 1 and recipe.data.broken == "skip":
        raise InputError("data.broken is 'skip' with several processes, whose batches would differ. Mend the images.")
    if accelerator.is_main_process:
        state = folder.begin(recipe, resume)
        folder.write_metrics(state.history)
    accelerator.wait_for_everyone()
    return folder.saved_state()


def _run(training: Training, folder: RunFolder, state: State, on_epoch: Callable[[Row], object] | None) -> Row:
    history = list(state.history)
    for epoch in range(state.epoch, training.recipe.train.epochs):
        kept = f"The state after epoch {epoch} is kept in {folder.state}." if epoch else "No epoch was finished."
        try:
            history.append(training.run_epoch(epoch))
        except StateError as error:
            raise StateError(f"{error} {kept}") from None
        state = training.state(history)  # all processes take part, the first one writes
        if training.accelerator.is_main_process:
            try:
                folder.save_epoch(state)
            except FileError as error:
                raise FileError(f"{error} {kept} Make room, then continue with --resume.") from None
            if on_epoch is not None:
                on_epoch(history[-1])
    device = str(training.accelerator.device)
    skipped = len({*training.train_split.skipped, *training.test_split.skipped})
    summary = record.summarize(training.recipe, training.size, history, device, training.commit, skipped)
    if training.accelerator.is_main_process:
        folder.write_summary(summary)
    return summary
