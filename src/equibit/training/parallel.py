"""One training in several processes: what each computes, and how their results become those of one process.

Started by `torchrun` or `accelerate launch`. Every process sees the same order and the same random numbers and takes
its own part of every batch, so the gradient, averaged over processes, is that of the whole batch.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor
from torch.distributed.tensor.experimental import register_sharding
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from equibit.errors import InputError
from equibit.kernels import torch_ops  # noqa: F401  (defines equibit::select and values_at)


@register_sharding([torch.ops.equibit.select.default, torch.ops.equibit.values_at.default])  # type: ignore[untyped-decorator]
def _ranked(*arguments: Any) -> list[tuple[list[Any], list[Any]]]:
    """Ranks among sharded values gather them first: those of a row, or of the whole layer in SiMaN's projection."""
    return [([Replicate()], [Replicate(), *[None] * (len(arguments) - 1)])]


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient, because every process uses the result."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return summed(values.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return summed(gradient.clone())


def _sum(values: Tensor) -> Tensor:
    return cast(Tensor, _Sum.apply(values))  # type: ignore[no-untyped-call]


class SharedBatchNorm(_BatchNorm):
    """Batch norm over the batches of all processes on CPUs; torch's own SyncBatchNorm runs on GPUs only."""

    def forward(self, x: Tensor) -> Tensor:
        """(x - mean) / sqrt(var + eps) * weight + bias, mean and biased variance over all processes' batches."""
        if not self.training:
            return super().forward(x)
        axes = [axis for axis in range(x.dim()) if axis != 1]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        count = float(summed(torch.tensor(x.numel() // x.shape[1])))
        mean = _sum(x.sum(axes)) / count
        variance = _sum((x - mean.view(shape)).square().sum(axes)) / count
        self._track(mean.detach(), variance.detach(), count)
        normal = (x - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        return normal if self.weight is None else normal * self.weight.view(shape) + self.bias.view(shape)

    def _check_input_dim(self, x: Tensor) -> None:
        """Nothing to check: it takes the place of a batch norm of any dimension."""

    def _track(self, mean: Tensor, variance: Tensor, count: float) -> None:
        """Running statistics, the variance unbiased, as in torch's batch norm."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, rate)
        self.running_var.lerp_(variance * (count / max(count - 1, 1)), rate)


def prepare(model: nn.Module, accelerator: Accelerator, shard: bool) -> tuple[nn.Module, nn.Module]:
    """The model as this process trains it, and what to call in a training step.

    With several processes batch norm shares its statistics, and gradients are averaged: by DistributedDataParallel, or,
    with `shard`, by FSDP2, which also spreads parameters and optimiser state over the processes.

    Raises:
        InputError: `shard` in a single process.
    """
    if shard and accelerator.num_processes == 1:
        raise InputError("train.shard is true, but there is one process. Start it with torchrun, or leave it false.")
    if accelerator.num_processes == 1:
        return model, model
    if accelerator.device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    else:
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.__class__ = SharedBatchNorm
    if shard:
        fully_shard(model)
        return model, model
    devices = [accelerator.device] if accelerator.device.type == "cuda" else None
    return model, DistributedDataParallel(model, device_ids=devices)


def part(batch: int, accumulate: int, accelerator: Accelerator) -> slice:
    """The rows of a batch of `batch` images that this process takes.

    Raises:
        InputError: The batch cannot be divided evenly.
    """
    processes = accelerator.num_processes
    if batch % (processes * accumulate):
        raise InputError(
            f"a batch of {batch} images cannot be divided evenly over {processes} process(es) with "
            f"train.accumulate {accumulate}. Choose a data.batch_size that is a multiple of {processes * accumulate}."
        )
    size = batch // processes
    return slice(accelerator.process_index * size, (accelerator.process_index + 1) * size)


def without_sync(call: nn.Module, last: bool) -> AbstractContextManager[object]:
    """For a micro-batch: gradients stay local until the `last` one of a step."""
    if isinstance(call, FSDPModule):
        call.set_requires_gradient_sync(last)
    if isinstance(call, DistributedDataParallel) and not last:
        return cast(AbstractContextManager[object], call.no_sync())
    return nullcontext()


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Within, every process holds all weights of a sharded model; all processes must enter."""
    if not isinstance(model, FSDPModule):
        yield
        return
    model.unshard()
    try:
        yield
    finally:
        model.reshard()


def whole(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors with the shards of all processes put together; all processes must call."""
    return {k: v.full_tensor() if isinstance(v, DTensor) else v for k, v in tensors.items()}


def like(value: Tensor, target: Tensor) -> Tensor:
    """`value` distributed over the processes as `target` is."""
    if not isinstance(target, DTensor):
        return value
    return distribute_tensor(value.to(target.device), target.device_mesh, target.placements)


def summed(values: Tensor) -> Tensor:
    """The sum over all processes, in place and without gradient."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values
