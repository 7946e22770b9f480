"""The optimiser of a recipe, and its state by parameter name."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from equibit.convert import param_groups
from equibit.errors import FormatError
from equibit.recipes.schema import Optimizer
from equibit.training import parallel


def create(section: Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    """An optimiser over `equibit.param_groups`: latents of methods that forbid L2 get none, unless `decay_latents`."""
    groups = param_groups(model, weight_decay=section.weight_decay)
    if section.decay_latents:
        groups = [{**group, "weight_decay": section.weight_decay} for group in groups]
    # One pass over memory; torch has it for whole tensors only.
    fused = not any(isinstance(p, DTensor) for p in model.parameters())
    if section.name == "sgd":
        return torch.optim.SGD(groups, lr=section.lr, momentum=section.momentum, nesterov=section.nesterov, fused=fused)
    family = torch.optim.Adam if section.name == "adam" else torch.optim.AdamW
    return family(groups, lr=section.lr, betas=(section.momentum, 0.999), fused=fused)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def state_by_name(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimiser's tensors as `<parameter>/<quantity>`."""
    return {
        f"{name}/{quantity}": value
        for name, parameter in model.named_parameters()
        for quantity, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def restore(optimizer: torch.optim.Optimizer, model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Puts back what `state_by_name` gave, in each parameter's own memory format and device."""
    parameters = dict(model.named_parameters())
    for key, saved in state.items():
        name, _, quantity = key.rpartition("/")
        if name not in parameters:
            raise FormatError(f"the saved optimiser state names {name!r}, which is no parameter of the model.")
        parameter = parameters[name]
        if saved.shape == parameter.shape:
            saved = torch.empty_like(parameter).detach().copy_(parallel.like(saved, parameter))
        optimizer.state[parameter][quantity] = saved.to(parameter.device)
