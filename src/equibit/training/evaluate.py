"""Accuracy and loss over a whole test set."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from equibit import data
from equibit.errors import InputError


@dataclass(frozen=True)
class Evaluation:
    """`accuracy` as a fraction and mean cross-entropy `loss` over `n` images."""

    accuracy: float
    loss: float
    n: int


@torch.no_grad()
def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    mean: Sequence[float] | Tensor,
    std: Sequence[float] | Tensor,
    batch_size: int = 256,
) -> Evaluation:
    """Scores every image once, the last partial batch included; the model's mode is restored.

    Args:
        model: Maps normalised float32 images (batch, channels, height, width) to logits.
        images: uint8 (N, channels, height, width), on any device.
        labels: int64 (N,).
        mean: Per channel, of pixels in [0, 1].
        std: Per channel, of pixels in [0, 1].
        batch_size: Images per forward pass; it does not change the result beyond rounding.

    Raises:
        InputError: There are no images, or not as many labels.
    """
    if len(images) == 0 or len(images) != len(labels):
        raise InputError(f"cannot evaluate on {len(images)} images with {len(labels)} labels.")
    device = next((p.device for p in model.parameters()), images.device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    was_training = model.training
    model.eval()
    try:
        for batch, target in zip(torch.split(images, batch_size), torch.split(labels, batch_size), strict=True):
            logits = model(data.normalize(batch.to(device), mean, std)).float()  # (batch, classes)
            target = target.to(device)
            loss += cross_entropy(logits, target, reduction="sum")
            correct += (logits.argmax(dim=1) == target).sum()
    finally:
        model.train(was_training)
    return Evaluation(int(correct) / len(images), float(loss) / len(images), len(images))
