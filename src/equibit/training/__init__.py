"""Training a recipe into a run folder, resuming it, and reading it back."""

from equibit.training.device import is_first_process
from equibit.training.evaluate import Evaluation, evaluate
from equibit.training.loop import train
from equibit.training.memory import keep_freed_memory
from equibit.training.run import Run, load_run

__all__ = ["Evaluation", "Run", "evaluate", "is_first_process", "keep_freed_memory", "load_run", "train"]
