"""What a recipe holds: one frozen dataclass per section, every default in one place.

A recipe is data. It names what the registries know (models, methods, activations, policies) and numbers; nothing in it
is evaluated or imported. jsonargparse reads it, from YAML and from the command line alike.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import yaml
from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    OpenUnitInterval,
    PositiveFloat,
    PositiveInt,
)


@dataclass(frozen=True)
class Model:
    """Section `model`: the float network.

    Args:
        name: one of `equibit models`
        num_classes: number of classes
        in_shape: channels, height and width of an image; null: the data set's
        block: kind of residual block; null: the network's default
        stem: kind of first layers; null: the network's default
        norm: affine, or plain: batch norm without learned scale and offset; null: the network's default
    """

    name: str
    num_classes: PositiveInt
    in_shape: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    block: str | None = None
    stem: str | None = None
    norm: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options that are set, as `equibit.models.create` takes them."""
        options = {"block": self.block, "stem": self.stem, "norm": self.norm}
        return {k: v for k, v in options.items() if v is not None}


@dataclass(frozen=True)
class Data:
    """Section `data`.

    Args:
        name: one of `equibit data list`
        augment: none, shift (MNIST), crop_flip (CIFAR), random_resized_crop or resize_crop (imagefolder)
        batch_size: images in a training step
        train_images: how many training images to use, the first of a fixed order that mixes the classes; null: all
        mean: per channel, of pixels in [0, 1]; null: the data set's
        std: per channel, of pixels in [0, 1]; null: the data set's
        path: imagefolder: its folder, relative to EQUIBIT_DATA; null: imagefolder
        size: imagefolder: side of the images in pixels; null: 224
        resize: imagefolder: before a crop, the shorter side or both sides become 256/224 of size; null: shorter_side
        workers: imagefolder: processes that decode; 0: none beside the training; null: one per free core, at most 16
        broken: imagefolder: what to do with an image that cannot be read; null: raise
    """

    name: str
    augment: str = "none"
    batch_size: PositiveInt = 128
    train_images: PositiveInt | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[PositiveFloat, ...] | None = None
    path: str | None = None
    size: PositiveInt | None = None
    resize: Literal["shorter_side", "square"] | None = None
    workers: NonNegativeInt | None = None
    broken: Literal["raise", "skip"] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options that are set, as `equibit.data.load` takes them."""
        values = {key: getattr(self, key) for key in ("path", "size", "resize", "workers", "broken")}
        return {key: value for key, value in values.items() if value is not None}


@dataclass(frozen=True)
class Optimizer:
    """Section `optimizer`.

    Args:
        name: kind of optimiser
        lr: learning rate before the schedule
        momentum: of sgd; for adam and adamw the first beta (the second is 0.999)
        nesterov: Nesterov momentum, sgd only
        weight_decay: L2; latents of methods that forbid it get none
        decay_latents: give them weight_decay after all, to see what it does to them
    """

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: PositiveFloat = 0.1
    momentum: ClosedUnitInterval = 0.9
    nesterov: bool = False
    weight_decay: NonNegativeFloat = 0.0
    decay_latents: bool = False


@dataclass(frozen=True)
class Schedule:
    """Section `schedule`: learning rate and method schedule over training.

    Args:
        name: how the learning rate falls; restarts: a cosine that begins anew at every milestone
        warmup_epochs: linear warm-up at the start
        milestones: epochs at which `step` multiplies by gamma, or at which `restarts` begins anew
        gamma: factor of `step`
        update: the learning rate changes every step or every epoch
        method: `advance` sees step / total, or floor(epoch) / epochs
    """

    name: Literal["cosine", "restarts", "linear", "step", "constant"] = "cosine"
    warmup_epochs: NonNegativeFloat = 0.0
    milestones: tuple[PositiveInt, ...] = ()
    gamma: ClosedUnitInterval = 0.1
    update: Literal["step", "epoch"] = "step"
    method: Literal["step", "epoch"] = "step"


@dataclass(frozen=True)
class Train:
    """Section `train`: length, seed and machine settings.

    Args:
        epochs: passes over the training set
        seed: of weights, order and augmentation
        label_smoothing: share of the label spread over all classes
        amp: bf16 autocast of the training steps
        compile: torch.compile augmentation, and in one graph normalisation, binarisation, network and loss
        channels_last: memory layout of images
        device: auto takes a GPU where there is one
        ema: decay of a running average of all weights, which is then what is scored and kept; null: none
        accumulate: parts that a batch is cut into, one after the other, to save memory
        shard: with several processes, spread weights and optimiser over them (FSDP2); false: DDP
        tensorboard: also log metrics, bits and latents of every epoch for TensorBoard
    """

    epochs: PositiveInt
    seed: NonNegativeInt = 0
    label_smoothing: ClosedUnitInterval = 0.0
    amp: bool = False
    compile: bool = False
    channels_last: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    ema: OpenUnitInterval | None = None
    accumulate: PositiveInt = 1
    shard: bool = False
    tensorboard: bool = True


@dataclass(frozen=True)
class Recipe:
    """A complete experiment.

    Args:
        name: what the recipe is called
        model: the float network
        data: the data set
        train: length and machine
        method: name of a binarisation method and its arguments; null: the float twin
        activation: name of a sign activation and pad_value (1W1A); null: 1W32A
        skip: policy for what stays float
        optimizer: the optimiser
        schedule: learning rate and method schedule
    """

    name: str
    model: Model
    data: Data
    train: Train
    method: dict[str, Any] | None = None
    activation: dict[str, Any] | None = None
    skip: str = "first_and_last"
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and scalars, complete with every default; `from_dict` gives an equal recipe."""
        return asdict(self, dict_factory=_lists)

    def to_yaml(self) -> str:
        """The recipe as YAML, complete; `equibit.recipes.load` of it gives an equal recipe."""
        return str(yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=110))


def _lists(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in pairs}
