"""Where a training runs: one Accelerate accelerator with exactly the device and precision of the recipe."""

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from equibit.errors import InputError, StateError
from equibit.recipes.schema import Train


def open_accelerator(section: Train) -> Accelerator:
    """An accelerator for `train.device` (`auto`: CUDA if there is any, else the CPU) and `train.amp`.

    Accelerate keeps one state per process and never changes it. It is reset here, so that an earlier training
    in the process decides neither the device nor the precision of this one.

    Raises:
        InputError: The device is not there.
        StateError: Several processes were launched; one training runs in one process.
    """
    cuda = torch.cuda.is_available()
    if section.device == "cuda" and not cuda:
        raise InputError("train.device is 'cuda', but torch sees no CUDA device. Use 'auto' or 'cpu'.")
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=section.device == "cpu" or not cuda, mixed_precision="bf16" if section.amp else "no")
    if accelerator.num_processes > 1:
        raise StateError(
            f"{accelerator.num_processes} processes were launched; a training runs in one process. "
            "Start it without torchrun or accelerate launch."
        )
    if section.device == "cuda" and accelerator.device.type != "cuda":
        raise InputError(f"train.device is 'cuda', but Accelerate's environment chose {accelerator.device}.")
    return accelerator
