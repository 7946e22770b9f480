"""Initial weights of the networks here."""

from typing import Literal

from torch import nn


def he_normal_(model: nn.Module, fan: Literal["fan_in", "fan_out"] = "fan_in") -> None:
    """Draw every convolution and linear weight from N(0, 2 / fan), in place; biases become 0.

    With fan_in the activations keep their size through ReLU layers, which a network without batch norm needs;
    with fan_out the gradients do. Linear layers always take fan_in: a classifier of few classes would begin
    with large logits otherwise. Source: K. He et al., "Delving Deep into Rectifiers", arXiv:1502.01852.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=fan, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
