"""Several trainings of one network in one: their weights stacked, one forward and backward pass for all of them.

The float network is mapped over the stacked weights with `torch.vmap`, which makes one grouped convolution of the
convolutions of all replicas, one batched product of their matrix products, and one batch norm over the channels of all.
A replica shares nothing with the others: it has its own order, flips and batch statistics, as if it trained alone.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.nn.modules.dropout import _DropoutNd

from equibit import convert, data, recipes
from equibit.data import Draw, TensorSplit, imagefolder
from equibit.errors import InputError
from equibit.layers import binary_layers, weight_name
from equibit.methods import Method
from equibit.recipes import Recipe
from equibit.training import optimizers
from equibit.training.schedules import Position
from equibit.training.seeds import generator
from equibit.training.steps import Training

METHODS = ("bi_half", "sign")  # each filter's binary weight depends on that filter alone, and nothing of it is learned


def require_stackable(recipe: Recipe) -> None:
    """Refuses what cannot be trained in a stack.

    Raises:
        InputError: The recipe has another method, sign activations, dropout (whose masks would not be those of a
            training alone), images in files, or a machine setting that a stack does not have.
    """
    method = recipe.method
    if method is not None and method["name"] not in METHODS:
        raise _refusal(f"method {method['name']!r}", f"float, {' and '.join(METHODS)} can")
    if method is not None and method["name"] == "sign" and method["density"] != 1:
        raise _refusal("method 'sign' with a density below 1, which ranks the whole layer", "bi_half with one can")
    if recipe.data.name == imagefolder.NAME:
        raise _refusal("images that are not all in memory", "any data set but imagefolder can")
    if recipe.activation is not None:
        raise _refusal("a sign activation", "1W32A can")
    for key, without in (("ema", None), ("accumulate", 1), ("compile", False), ("shard", False)):
        if (value := getattr(recipe.train, key)) != without:
            raise _refusal(f"train.{key} {value}", f"train.{key} {'null' if without is None else without} can")
    network = _float_network(recipe)
    if any(isinstance(module, _DropoutNd) and module.p > 0 for module in network.modules()):
        raise _refusal(f"{recipe.model.name}, which has dropout", "a network without it can")


def _refusal(what: str, instead: str) -> InputError:
    return InputError(f"{what} cannot be trained as batched replicas ({instead}). Train the runs one by one.")


def kind(recipe: Recipe) -> Recipe:
    """What recipes must have in common to be trained in one stack: all but seed, name, and which method it is."""
    method: dict[str, Any] | None = None if recipe.method is None else {}
    return replace(recipe, name="", method=method, train=replace(recipe.train, seed=0))


class Stack:
    """Trainings that do their epochs together.

    Their parameters, buffers and optimiser states become parts of stacked tensors (replica first), so after every epoch
    each training holds its own result: to score, to save, to go on alone. `train.channels_last` has no effect here.

    Args:
        trainings: Of one `kind`, stackable, on one device, after the same number of epochs.
    """

    def __init__(self, trainings: Sequence[Training]) -> None:
        self.trainings = tuple(trainings)
        self.first = self.trainings[0]
        self.device = self.first.accelerator.device
        self.network = _float_network(self.first.recipe)
        self.advancing = [t for t in trainings if any(layer.method.needs_advance for layer in binary_layers(t.model))]
        split = self.first.train_split
        assert isinstance(split, TensorSplit)  # as `require_stackable` has seen to
        self.images, self.labels = split.images, split.labels.to(self.device)
        self.own = [dict(training.model.named_parameters()) for training in trainings]
        self.parameters = {name: nn.Parameter(value) for name, value in _stack(self.own).items()}
        self.buffers = _stack([dict(training.model.named_buffers()) for training in trainings])
        self.alike = _alike(self.trainings)
        self.optimizer = optimizers.create(self.first.recipe.optimizer, nn.ParameterList(self.parameters.values()))
        self._stack_optimizer_states()

    def train_epoch(self, epoch: int) -> list[tuple[float, float]]:
        """Mean loss and accuracy of every training over the epoch's images, summed on the device."""
        steps, size = self.first.steps, self.first.batch_size
        totals = torch.zeros(len(self.trainings), 2, dtype=torch.float64, device=self.device)
        self.network.train()
        for step, (images, labels) in enumerate(self.batches(epoch)):
            if step == steps - 1:
                for training in self.trainings:
                    training.note_last_step()
            totals += self.step(Position(epoch, step, steps), images, labels)
        self._share_optimizer_state()
        return [(loss, accuracy) for loss, accuracy in (totals / (steps * size)).tolist()]

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Each training's own batches: uint8 images (replicas b, channels, height, width), labels (replicas b,)."""
        augment, size, steps = self.first.recipe.data.augment, self.first.batch_size, self.first.steps
        seeds = [training.recipe.train.seed for training in self.trainings]
        drawers = [generator(seed, "augment", epoch, self.device) for seed in seeds]
        orders = [torch.randperm(len(self.images), generator=generator(seed, "order", epoch)) for seed in seeds]
        orders_of_all = torch.stack(orders).to(self.device)
        for step in range(steps):
            index = orders_of_all[:, step * size : (step + 1) * size].flatten()
            drawn = _joined([data.draw(augment, size, drawer) for drawer in drawers])
            yield data.apply(self.images[index], augment, drawn), self.labels[index]

    def step(self, position: Position, images: Tensor, labels: Tensor) -> Tensor:
        """One optimiser step of every training, on its part of the images (replicas b, channels, height, width).

        Returns:
            float64 (replicas, 2): loss summed over a training's images, correct answers.
        """
        for training in self.advancing:
            convert.advance(training.model, training.progress(position))
        optimizers.set_lr(self.optimizer, self.first.lr(position))
        self.optimizer.zero_grad()
        losses, correct = self._losses(images, labels)
        (losses / self.first.batch_size).sum().backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return torch.stack([losses.detach().double(), correct.double()], dim=1)

    def _losses(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy summed over each training's images, and its number of correct answers; (replicas,) both."""
        section, count = self.first.recipe.train, len(self.trainings)
        x = data.normalize(images, self.first.mean, self.first.std).view(count, -1, *images.shape[1:])
        with torch.autocast(images.device.type, torch.bfloat16, enabled=section.amp):
            logits = torch.vmap(self._forward)(self._weights(), self.buffers, x).float()  # (replicas, b, classes)
        flat = logits.flatten(0, 1)
        losses = cross_entropy(flat, labels, label_smoothing=section.label_smoothing, reduction="none")
        return losses.view(count, -1).sum(1), (flat.argmax(dim=1) == labels).view(count, -1).sum(1)

    def _forward(self, weights: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        logits: Tensor = functional_call(self.network, (weights, buffers), (x,))
        return logits

    def _weights(self) -> dict[str, Tensor]:
        """The float network's parameters, replica first: those of binary layers are effective weights."""
        weights: dict[str, Tensor] = dict(self.parameters)
        for layer in binary_layers(self.first.model):
            latents = weights.pop(f"{layer.name}.parametrizations.weight.original")
            weights[weight_name(layer.name)] = torch.cat(
                [_effective(latents[where], methods[layer.name]) for where, methods in self.alike]
            )
        return weights

    def _stack_optimizer_states(self) -> None:
        """Goes on with the states that the trainings' own optimisers hold, if they hold any."""
        for name, stacked in self.parameters.items():
            states = [t.optimizer.state[own[name]] for t, own in zip(self.trainings, self.own, strict=True)]
            for quantity, value in states[0].items():  # a scalar counts the steps, which are the same for all
                parts = [state[quantity] for state in states]
                self.optimizer.state[stacked][quantity] = torch.stack(parts) if value.dim() else value.clone()

    def _share_optimizer_state(self) -> None:
        """Gives each training's own optimiser its part of the state."""
        for name, stacked in self.parameters.items():
            for quantity, value in self.optimizer.state[stacked].items():
                for i, (training, own) in enumerate(zip(self.trainings, self.own, strict=True)):
                    training.optimizer.state[own[name]][quantity] = value[i] if value.dim() else value


def _float_network(recipe: Recipe) -> nn.Module:
    """The network without values of its own."""
    with torch.device("meta"):
        return recipes.build(replace(recipe, method=None, activation=None))


def _stack(tensors: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of each name stacked; those given become parts of them."""
    stacked = {name: torch.stack([own[name].detach() for own in tensors]) for name in tensors[0]}
    for i, own in enumerate(tensors):
        for name, tensor in own.items():
            tensor.data = stacked[name][i]
    return stacked


def _alike(trainings: Sequence[Training]) -> list[tuple[slice, dict[str, Method]]]:
    """Which neighbours have the same method with the same arguments, and that method for each layer."""
    groups = itertools.groupby(range(len(trainings)), key=lambda i: trainings[i].recipe.method)
    found = [list(group) for _, group in groups]
    methods = [{layer.name: layer.method for layer in binary_layers(trainings[group[0]].model)} for group in found]
    return [(slice(group[0], group[-1] + 1), own) for group, own in zip(found, methods, strict=True)]


def _effective(latents: Tensor, method: Method) -> Tensor:
    """Effective weights of some replicas (replicas, filters, ...): their filters are just more filters."""
    effective: Tensor = method(latents.flatten(0, 1))
    return effective.view_as(latents)


def _joined(drawn: Sequence[Draw | None]) -> Draw | None:
    """The random numbers of several batches as those of one; all None or none of them."""
    found = [one for one in drawn if one is not None]
    if not found:
        return None
    flips = [one.flip for one in found if one.flip is not None]
    return Draw(
        torch.cat([one.top for one in found]),
        torch.cat([one.left for one in found]),
        torch.cat(flips) if flips else None,
    )
