"""The training loop: one recipe, one run folder, the same numbers however often it is interrupted."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from equibit.training.event_log import EventLog


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
        dataset = load_data(recipe)
        recipe = complete(recipe, dataset)
        state = _begin(folder, recipe, resume, accelerator)
        if state.epoch == recipe.train.epochs and folder.summary.exists():
            return folder.read_summary()
        training = Training(recipe, dataset, accelerator)
        with torch.random.fork_rng(devices=training.cuda_devices):
            training.restore(state, folder.state)
            return _run(training, folder, state, on_epoch)


def load_data(recipe: Recipe) -> Dataset:
    """The data set of a recipe, with as many training images as it says.

    Raises:
        InputError: There are fewer.
        FileError: Its files are not there.
        FormatError: A file is damaged.
    """
    dataset = data.load(recipe.data.name, **recipe.data.options)
    count = recipe.data.train_images
    return dataset if count is None else dataset.with_train_images(count)


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
        folder.write_records(state)
    accelerator.wait_for_everyone()
    return folder.saved_state()


def _run(training: Training, folder: RunFolder, state: State, on_epoch: Callable[[Row], object] | None) -> Row:
    history, layers = list(state.history), list(state.layers)
    first = training.accelerator.is_main_process
    with event_log(folder, training.recipe, state) if first else nullcontext() as log:
        for epoch in range(state.epoch, training.recipe.train.epochs):
            with kept(folder, epoch):
                row, bits = training.run_epoch(epoch)
                history.append(row)
                layers.append(bits)
                state = training.state(history, layers)  # all processes take part, the first one writes
                if first:
                    folder.save_epoch(state)
            if log is not None:
                log.write(row, bits["layers"])
            if first and on_epoch is not None:
                on_epoch(row)
    return conclude(training, folder, history)


@contextmanager
def event_log(folder: RunFolder, recipe: Recipe, state: State) -> "Iterator[EventLog | None]":
    """The log for TensorBoard of a run that goes on from `state`; None where the recipe wants none."""
    if not recipe.train.tensorboard:
        yield None
        return
    from equibit.training.event_log import EventLog  # noqa: PLC0415  (0.3 s, for which only a training should wait)

    log, interrupted = EventLog(folder.tensorboard, state.epoch), False
    try:
        if state.epoch:  # a kill can have come between this epoch's state and its events
            log.write(state.history[-1], state.layers[-1]["layers"] if state.layers else {})
        yield log
    except KeyboardInterrupt:
        interrupted = True
        raise
    finally:
        if not interrupted:  # it can have left a lock of the writer held, on which closing would wait for ever
            log.close()


@contextmanager
def kept(folder: RunFolder, epoch: int) -> Iterator[None]:
    """Errors within say what is left of a training that had finished `epoch` epochs."""
    left = f"The state after epoch {epoch} is kept in {folder.state}." if epoch else "No epoch was finished."
    try:
        yield
    except StateError as error:
        raise StateError(f"{error} {left}") from None
    except FileError as error:
        raise FileError(f"{error} {left} Make room, then continue with --resume.") from None


def conclude(training: Training, folder: RunFolder, history: Sequence[Row], replicas: int = 1) -> Row:
    """The summary of a finished training, one of `replicas` at once; the first process writes it."""
    device = str(training.accelerator.device)
    skipped = len({*training.train_split.skipped, *training.test_split.skipped})
    summary = record.summarize(training.recipe, training.size, history, device, training.commit, skipped)
    summary |= {"replicas": replicas} if replicas > 1 else {}
    if training.accelerator.is_main_process:
        folder.write_summary(summary)
    return summary
