"""Several runs of one network trained at once, each in its own run folder, as if it trained alone."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from accelerate import Accelerator

from equibit.data import Dataset
from equibit.errors import EquibitError, InputError
from equibit.recipes import Recipe
from equibit.training import stack
from equibit.training.device import open_accelerator
from equibit.training.folder import RunFolder
from equibit.training.loop import complete, conclude, event_log, kept, load_data
from equibit.training.stack import Stack
from equibit.training.steps import Row, Training


def train_together(
    recipes: Sequence[Recipe],
    folders: Sequence[Path],
    on_epoch: Callable[[int, Row], object] = lambda _run, _row: None,
) -> list[Row | EquibitError]:
    """Trains several recipes of one `stack.kind` at once, each into its run folder, or goes on with what is there.

    The results are those of `train`, to rounding: a product of stacked matrices adds in another order. An epoch's
    `seconds` are a run's share of the time of all, and `summary.json` says of how many (`replicas`). Runs that are
    behind the others train alone until they have caught up.

    Args:
        recipes: That differ in seed, name and method alone.
        folders: One for each.
        on_epoch: Called with the place of a run and its row of metrics after each epoch, when it is safely on disk.

    Returns:
        For each run the content of `summary.json`, or the error that ended it; the others train on.

    Raises:
        InputError: The recipes cannot be trained together; or as `train`, where it concerns all.
        FileError: As `train`.
    """
    for recipe in recipes:
        stack.require_stackable(recipe)
        if stack.kind(recipe) != stack.kind(recipes[0]):
            raise InputError(f"{recipe.name} and {recipes[0].name} differ in more than seed and method.")
    accelerator = open_accelerator(recipes[0].train)
    if accelerator.num_processes > 1:
        raise InputError("batched replicas train in one process; start them without torchrun.")
    dataset = load_data(recipes[0])
    device = accelerator.device
    dataset = replace(dataset, train=dataset.train.to(device), test=dataset.test.to(device))  # once for all runs
    with ExitStack() as files:
        runs = [_Run(recipe, folder, files) for recipe, folder in zip(recipes, folders, strict=True)]
        for run in runs:
            with run.own_errors():
                run.open(dataset, accelerator)
        _train(runs, on_epoch)
    return [run.result for run in runs if run.result is not None]


def _train(runs: Sequence["_Run"], on_epoch: Callable[[int, Row], object]) -> None:
    """Epoch by epoch: those that have the fewest behind them do the next one together."""
    stacked: Stack | None = None
    while left := [run for run in runs if run.result is None]:
        epoch = min(run.epoch for run in left)
        active = [run for run in left if run.epoch == epoch]
        if stacked is None or stacked.trainings != tuple(run.training for run in active):
            stacked = Stack([run.training for run in active])
        start = perf_counter()
        measured = stacked.train_epoch(epoch)
        share = (perf_counter() - start) / len(active)
        for run, (loss, accuracy) in zip(active, measured, strict=True):
            with run.own_errors():
                run.finish_epoch(loss, accuracy, perf_counter() - share, len(active))
            if run.epoch > epoch:
                on_epoch(runs.index(run), run.history[-1])


class _Run:
    """One of the runs: its folder and training, its records so far, and its result once it is over."""

    def __init__(self, recipe: Recipe, folder: Path, files: ExitStack) -> None:
        self.recipe, self.folder, self._files = recipe, RunFolder(folder), files
        self.history: list[Row] = []
        self.layers: list[Row] = []
        self.result: Row | EquibitError | None = None

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self.history)

    @contextmanager
    def own_errors(self) -> Iterator[None]:
        """An error within ends this run and no other."""
        try:
            yield
        except EquibitError as error:
            self.result = error

    def open(self, dataset: Dataset, accelerator: Accelerator) -> None:
        """Takes the folder, and goes back to where it is."""
        self._files.enter_context(self.folder.lock())
        recipe = complete(self.recipe, dataset)
        state = self.folder.begin(recipe, resume=True)
        self.folder.write_records(state)
        self.history, self.layers = list(state.history), list(state.layers)
        if self.epoch == recipe.train.epochs and self.folder.summary.exists():
            self.result = self.folder.read_summary()
            return
        self.training = Training(recipe, dataset, accelerator)
        self.training.restore(state, self.folder.state)
        self.log = self._files.enter_context(event_log(self.folder, recipe, state))

    def finish_epoch(self, loss: float, accuracy: float, start: float, replicas: int) -> None:
        """Scores and writes an epoch whose steps are done; after the last one the summary too."""
        with kept(self.folder, self.epoch):
            row, layers = self.training.finish_epoch(self.epoch, loss, accuracy, start)
            self.folder.save_epoch(self.training.state([*self.history, row], [*self.layers, layers]))
        self.history.append(row)
        self.layers.append(layers)
        if self.log is not None:
            self.log.write(row, layers["layers"])
        if self.epoch == self.training.recipe.train.epochs:
            self.result = conclude(self.training, self.folder, self.history, replicas)
