"""Batch norm statistics that belong to the binary weights."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from equibit.errors import InputError


@torch.no_grad()
def recalibrate_batchnorm(model: nn.Module, batches: Iterable[Any]) -> None:
    """Estimates the running statistics of every batch norm anew, with the hard weights, in place.

    Batch norm statistics belong to the weights they were seen with: call it after loading a float checkpoint into a
    binarised model, or where training used relaxed weights. Batch norms run as in training, everything else as in
    eval mode: methods give their hard weights, dropout is off. A statistic becomes the mean over the batches of the
    batch mean, or of the unbiased batch variance, each batch counting once; so use batches of one size, as large as
    those of the training. A batch norm that no batch reaches keeps its statistics.

    Args:
        model: A binarised, packed or float model; modes, momenta and gradients stay as they are.
        batches: Inputs of the model, or tuples or lists that begin with one, such as a DataLoader gives. They are
            moved to the device of the model.

    Raises:
        InputError: The model has no batch norm with running statistics; there is no batch, or one that does not begin
            with a tensor. The model is then unchanged, as it is after an error in the model itself.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not norms:
        raise InputError("the model has no batch norm with running statistics; there is nothing to recalibrate.")
    iterator = iter(batches)
    first = list(itertools.islice(iterator, 1))
    if not first:
        raise InputError("there is no batch to recalibrate with; give at least one.")
    device = norms[0].running_mean.device  # type: ignore[union-attr]
    with _collecting(model, norms):
        for batch in itertools.chain(first, iterator):
            model(_input(batch).to(device))


def _input(batch: Any) -> Tensor:
    found = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    if not isinstance(found, Tensor):
        raise InputError(f"a batch is a {type(batch).__name__}; give tensors, or tuples that begin with one.")
    return found


@contextlib.contextmanager
def _collecting(model: nn.Module, norms: list[_BatchNorm]) -> Iterator[None]:
    """Fresh statistics as cumulative averages; then modes and momenta as before, after an error statistics too."""
    modes = [(module, module.training) for module in model.modules()]
    before = [(norm, norm.momentum, {k: v.clone() for k, v in norm.named_buffers()}) for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for the cumulative average
        norm.train()
    failed = True
    try:
        yield
        failed = False
    finally:
        for norm, momentum, buffers in before:
            norm.momentum = momentum
            if failed or not norm.num_batches_tracked:
                for name, value in buffers.items():
                    norm.get_buffer(name).copy_(value)
        for module, mode in modes:
            module.train(mode)
