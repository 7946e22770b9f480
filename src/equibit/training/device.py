"""Where a training runs: one Accelerate accelerator with exactly the device of the recipe."""

import os

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from equibit.errors import InputError
from equibit.recipes.schema import Train


def is_first_process() -> bool:
    """Whether this is the process that writes and prints: `torchrun` and `accelerate launch` number them."""
    return os.environ.get("RANK", "0") == "0"


def open_accelerator(section: Train) -> Accelerator:
    """An accelerator for `train.device` (`auto`: CUDA if there is any, else the CPU), in each process of a launch.

    Accelerate keeps one state per process and never changes it. It is reset here, so that an earlier training
    in the process does not decide the device of this one.

    Raises:
        InputError: The device is not there.
    """
    cuda = torch.cuda.is_available()
    if section.device == "cuda" and not cuda:
        raise InputError("train.device is 'cuda', but torch sees no CUDA device. Use 'auto' or 'cpu'.")
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=section.device == "cpu" or not cuda)
    if section.device == "cuda" and accelerator.device.type != "cuda":
        raise InputError(f"train.device is 'cuda', but Accelerate's environment chose {accelerator.device}.")
    return accelerator
