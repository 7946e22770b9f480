"""Accuracy and loss over a whole test set."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from equibit import data
from equibit.data import Split
from equibit.errors import InputError
from equibit.layers import binary_layers
from equibit.training import parallel


@dataclass(frozen=True)
class Evaluation:
    """`accuracy` as a fraction and mean cross-entropy `loss` over `n` images."""

    accuracy: float
    loss: float
    n: int


@torch.no_grad()
def evaluate(
    model: nn.Module,
    split: Split,
    mean: Sequence[float] | Tensor,
    std: Sequence[float] | Tensor,
    batch_size: int = 256,
    *,
    processes: tuple[int, int] = (0, 1),
    relaxed: bool = False,
) -> Evaluation:
    """Scores every image once, the last partial batch included; the model's mode is restored.

    Args:
        model: Maps normalised float32 images (batch, channels, height, width) to logits.
        split: The images, such as `dataset.test`; they need not be on the model's device.
        mean: Per channel, of pixels in [0, 1].
        std: Per channel, of pixels in [0, 1].
        batch_size: Images per forward pass; it does not change the result beyond rounding.
        processes: (which, of how many): each scores its own batches; all get the result of all.
        relaxed: With the weights of the training, for methods that relax the binary ones.

    Raises:
        InputError: There are no images that can be read.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    first, step = processes
    batches = data.sequential(len(split), batch_size)[first::step]
    totals = torch.zeros(3, dtype=torch.float64, device=device)  # loss, correct, images
    was_training = model.training
    model.eval()
    for layer in binary_layers(model) if relaxed else ():
        layer.parametrization.train()
    try:
        for images, labels in split.to(device).batches(batches):
            logits = model(data.normalize(images, mean, std)).float()  # (b, classes)
            loss = cross_entropy(logits, labels, reduction="sum").double()
            correct = (logits.argmax(dim=1) == labels).sum()
            totals += torch.stack([loss, correct, torch.full_like(correct, len(labels))])
    finally:
        model.train(was_training)
    loss, correct, n = (parallel.summed(totals) if step > 1 else totals).tolist()
    if not n:
        raise InputError(f"cannot evaluate: none of the {len(split)} images can be read.")
    return Evaluation(correct / n, loss / n, int(n))
