"""A training under way: the network, its optimiser, the data on the device, and one epoch after the other."""

import functools
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from equibit import analysis, convert, data, recipes
from equibit.data import Dataset, TensorSplit
from equibit.errors import StateError
from equibit.layers import binary_layers
from equibit.recipes import Recipe
from equibit.training import layer_record, optimizers, parallel, record, schedules
from equibit.training.checkpoint import State, load_into
from equibit.training.evaluate import Evaluation, evaluate
from equibit.training.schedules import Position
from equibit.training.seeds import generator, stream_seed

Row = dict[str, Any]


class Training:
    """A training under way; in several processes, one such object in each.

    Attributes:
        model: The network that the optimiser trains.
        average: The running average of its parameters and buffers (`train.ema`), or None.
    """

    def __init__(self, recipe: Recipe, dataset: Dataset, accelerator: Accelerator) -> None:
        self.recipe, self.accelerator = recipe, accelerator
        self.commit = record.source_commit()  # of the code that runs, not of what the checkout holds at the end
        device, section = accelerator.device, recipe.train
        self.cuda_devices = [device.index or 0] if device.type == "cuda" else []
        self.train_split, self.test_split = dataset.train.to(device), dataset.test.to(device)
        if section.compile and isinstance(self.train_split, TensorSplit):
            self.train_split = self.train_split.compiled()
        self.mean, self.std = (torch.tensor(v, device=device) for v in (recipe.data.mean, recipe.data.std))
        self.batch_size: int = min(recipe.data.batch_size, len(self.train_split))
        self.part = parallel.part(self.batch_size, section.accumulate, accelerator)
        with torch.random.fork_rng(devices=self.cuda_devices):
            torch.manual_seed(stream_seed(section.seed, "init"))
            model = recipes.build(recipe).to(device)
        if section.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.size = analysis.summary(model, (1, *dataset.in_shape))
        self.model, self.call = parallel.prepare(model, accelerator, section.shard)
        self.average = _average(self.model, section.ema)
        self.loss = torch.compile(self._loss) if section.compile else self._loss
        self.optimizer = optimizers.create(recipe.optimizer, self.model)
        self.bits = self._binary_weights()
        self.bits_before_step: dict[str, Tensor] = {}  # that is the last of an epoch
        self.flipped = {name: torch.zeros_like(w, dtype=torch.bool) for name, w in self.bits.items()}

    @property
    def measured(self) -> nn.Module:
        """The network that is scored and kept: the average where there is one."""
        return self.average.module if self.average is not None else self.model

    def state(self, history: list[Row], layers: list[Row]) -> State:
        """Everything to go on from here; all processes must call."""
        optimizer = optimizers.state_by_name(self.optimizer, self.model)
        average = self.average.state_dict() if self.average is not None else {}
        model = parallel.whole(self.model.state_dict())
        return State(history, model, parallel.whole(optimizer), average, layers, self.flipped)

    def restore(self, state: State, source: Path) -> None:
        """Goes back to the state read from `source`; an empty one changes nothing."""
        if not state.epoch:
            return
        now = self.model.state_dict()
        load_into(self.model, {k: parallel.like(v, now[k]) if k in now else v for k, v in state.model.items()}, source)
        optimizers.restore(self.optimizer, self.model, state.optimizer)
        if self.average is not None:
            load_into(self.average, state.average, source)
        self.bits = self._binary_weights()
        self.flipped = {name: flags.to(self.accelerator.device) for name, flags in state.flipped.items()}

    def run_epoch(self, epoch: int) -> tuple[Row, Row]:
        """Trains one epoch and scores the whole test set.

        Returns:
            The row of `metrics.jsonl`, whose `lr` is that of the first step, and the row of `layers.jsonl`.

        Raises:
            StateError: The loss or a parameter is no longer finite.
        """
        start = time.perf_counter()
        return self.finish_epoch(epoch, *self._train_epoch(epoch), start)

    def finish_epoch(self, epoch: int, loss: float, accuracy: float, start: float) -> tuple[Row, Row]:
        """What `run_epoch` does after the last step, and its rows; `loss` and `accuracy` are those of the steps.

        Raises:
            StateError: The loss or a parameter is no longer finite.
        """
        self._require_finite(epoch, loss)
        if self.average is not None:
            convert.advance(self.average.module, self.progress(Position(epoch, self.steps - 1, self.steps)))
        with parallel.gathered(self.model):
            test = self._evaluate()
            relaxed = {"relaxed_accuracy": self._evaluate(relaxed=True).accuracy} if self.relaxes else {}
        before, self.bits = self.bits, self._binary_weights()
        layers: Row = {"epoch": epoch + 1, "layers": self._record_layers(before)}
        row: Row = {
            "epoch": epoch + 1,
            "lr": self.lr(Position(epoch, 0, self.steps)),
            "train_loss": loss,
            "train_accuracy": accuracy,
            "test_loss": test.loss,
            "test_accuracy": test.accuracy,
            "test_n": test.n,
            **record.bit_statistics(before, self.bits),
            **relaxed,
            "seconds": time.perf_counter() - start,
        }
        return row, layers

    def note_last_step(self) -> None:
        """Keeps the binary weights before the last step of an epoch, whose flips are recorded; all processes call."""
        self.bits_before_step = self._binary_weights()

    def _record_layers(self, before: Mapping[str, Tensor]) -> dict[str, Row]:
        """Of the measured network, whose binary weights were `before` an epoch ago; all processes must call."""
        changed = layer_record.changed(before, self.bits)
        self.flipped = {name: flags.logical_or_(changed[name]) for name, flags in self.flipped.items()}
        before_step, self.bits_before_step = self.bits_before_step, {}
        with parallel.gathered(self.model):
            return layer_record.record(
                self.measured,
                before=before,
                after=self.bits,
                before_step=before_step,
                flipped=self.flipped,
                batches=(data.normalize(images, self.mean, self.std) for images in self._probe),
            )

    @functools.cached_property
    def _probe(self) -> list[Tensor]:
        """The test images on which activations are looked at."""
        count = min(layer_record.PROBE_IMAGES, len(self.test_split))
        batches = self.test_split.batches(data.sequential(count, self.recipe.data.batch_size))
        return [images for images, _ in batches]

    def _evaluate(self, *, relaxed: bool = False) -> Evaluation:
        """The measured network on the whole test set; all processes must call."""
        processes = (self.accelerator.process_index, self.accelerator.num_processes)
        where, size = (self.test_split, self.mean, self.std), self.recipe.data.batch_size
        return evaluate(self.measured, *where, size, processes=processes, relaxed=relaxed)

    @property
    def relaxes(self) -> bool:
        """Whether a method trains with relaxed weights, whose accuracy is then measured too."""
        return any(layer.method.relaxes for layer in binary_layers(self.measured))

    @property
    def steps(self) -> int:
        """Steps per epoch. The incomplete last batch is left out; the order, so the images in it, change."""
        return len(self.train_split) // self.batch_size

    def lr(self, position: Position) -> float:
        """The learning rate of a step."""
        base: float = self.recipe.optimizer.lr
        return base * schedules.lr_factor(self.recipe.schedule, self.recipe.train.epochs, position)

    def progress(self, position: Position) -> float:
        """What `equibit.advance` gets before a step."""
        return schedules.method_progress(self.recipe.schedule, self.recipe.train.epochs, position)

    def _train_epoch(self, epoch: int) -> tuple[float, float]:
        """Mean loss and accuracy over the epoch's training images, summed on the device."""
        seed, process = self.recipe.train.seed, self.accelerator.process_index
        torch.manual_seed(stream_seed(seed, f"layers{process or ''}", epoch))  # dropout: another in each process
        order = torch.randperm(len(self.train_split), generator=generator(seed, "order", epoch))
        batches = self.train_split.batches(
            torch.split(order[: self.steps * self.batch_size], self.batch_size),
            augment=self.recipe.data.augment,
            seed=stream_seed(seed, "augment", epoch),
            part=self.part,
        )
        totals = torch.zeros(3, dtype=torch.float64, device=self.accelerator.device)  # loss, correct, images
        self.model.train()
        for step, (images, labels) in enumerate(batches):
            if step == self.steps - 1:
                self.note_last_step()
            totals += self.step(Position(epoch, step, self.steps), images, labels)
        loss, correct, images_seen = parallel.summed(totals).tolist()
        return loss / images_seen, correct / images_seen

    def step(self, position: Position, images: Tensor, labels: Tensor) -> Tensor:
        """One optimiser step on this process's part of a batch of uint8 images (b, channels, height, width).

        Returns:
            float64 (3,): loss summed over the images, correct answers, images.
        """
        convert.advance(self.model, self.progress(position))
        optimizers.set_lr(self.optimizer, self.lr(position))
        self.optimizer.zero_grad()
        totals = torch.zeros(3, dtype=torch.float64, device=images.device)
        count = self.recipe.train.accumulate
        for i, (x, y) in enumerate(zip(images.chunk(count), labels.chunk(count), strict=True)):
            with parallel.without_sync(self.call, last=i == count - 1):
                loss, correct = self.loss(x, y)
                (loss / len(images)).backward()  # type: ignore[no-untyped-call]
            totals += torch.stack([loss.detach().double(), correct, torch.full_like(correct, len(x))])
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return totals

    def _loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy summed over the images, and the number of correct answers as float64."""
        section = self.recipe.train
        x = data.normalize(images, self.mean, self.std)
        if section.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=section.amp):
            logits = self.call(x).float()  # (b, classes)
        loss = cross_entropy(logits, labels, label_smoothing=section.label_smoothing, reduction="sum")
        return loss, (logits.argmax(dim=1) == labels).sum(dtype=torch.float64)

    def _binary_weights(self) -> dict[str, Tensor]:
        """Of the measured network, as int8; all processes must call."""
        if self.recipe.method is None:
            return {}
        with parallel.gathered(self.model):
            return {name: w.to(torch.int8) for name, w in convert.binary_weights(self.measured).items()}

    def _require_finite(self, epoch: int, loss: float) -> None:
        """Once per epoch, because every check waits for the device."""
        broken = _broken(dict(self.model.named_parameters()))
        if broken or not math.isfinite(loss):
            layer = broken[0].removesuffix(".original").replace(".parametrizations", "") if broken else ""
            where = f" and {layer!r} holds NaN or infinite values" if broken else ""
            raise StateError(
                f"the training diverged in epoch {epoch + 1}: its loss is {loss}{where}. Try a lower "
                f"optimizer.lr (now {self.recipe.optimizer.lr:g}) or a longer schedule.warmup_epochs "
                f"(now {self.recipe.schedule.warmup_epochs:g})."
            )


def _broken(parameters: Mapping[str, Tensor]) -> list[str]:
    """Names of parameters with NaN or infinite values, in any process's part of them."""
    finite = [torch.isfinite(p.detach()).all() for p in parameters.values()]
    flags = parallel.whole(dict(zip(parameters, finite, strict=True)))
    return [name for name, flag in flags.items() if not bool(flag)]


def _average(model: nn.Module, decay: float | None) -> AveragedModel | None:
    """The exponential moving average of parameters and buffers, a <- decay a + (1 - decay) p after every step."""
    if decay is None:
        return None
    formula = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=formula, use_buffers=True)
