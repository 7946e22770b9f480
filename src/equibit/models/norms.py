"""Batch norm with and without learned scale and offset."""

from torch import nn

from equibit.errors import InputError

NORMS = ("affine", "plain")


def make_plain_(model: nn.Module) -> None:
    """Takes scale and offset from every batch norm, in place: it standardises, and nothing of it is learned.

    Source: M. McDonnell, "Training wide residual networks for deployment using a single bit for each weight",
    arXiv:1802.08530, which found that it overfits less.

    Raises:
        InputError: The network has no batch norm.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    if not norms:
        raise InputError("norm is 'plain', but this network has no batch norm; leave it at 'affine'.")
    for module in norms:
        module.affine = False
        module.register_parameter("weight", None)
        module.register_parameter("bias", None)
