"""From a binarised model to a packed one."""

import copy
from collections.abc import Iterator

import torch
from torch import nn

from equibit import bits
from equibit.errors import StateError
from equibit.layers import BinaryLayer, binary_layers, layer_kind
from equibit.packed.modules import KINDS, PackedLayer, Spec


def pack(model: nn.Module, *, native_signs: bool = False) -> nn.Module:
    """A new model in eval mode whose binary layers hold 1 bit per weight, with the same outputs.

    Where a layer with real inputs runs on our kernels (float32 on the CPU, without gradients) its sums are added in
    another order, so that the last bits differ; everywhere else it gives the binarised layer's output bit for bit.

    Everything else is copied; the given model is not changed. Batch norm stays as it is (the ONNX export folds it).

    Args:
        model: A binarised model.
        native_signs: Whether layers with binary inputs run on our kernels too, which are exact: where the model's
            float sums are 0 but for rounding, the next layer's input may then have the other sign.

    Returns:
        The packed copy; its state goes to disk with `save_packed`.

    Raises:
        StateError: The model has no binary layer.
        InputError: A latent weight holds NaN; the error names the layer.
    """
    layers = list(binary_layers(model))
    if not layers:
        raise StateError("the model has no binary layer to pack; call equibit.binarize_(model, method) first.")
    # Seeding deepcopy's memo puts the packed layers in the places of the binarised ones, wherever they are referenced.
    memo: dict[int, nn.Module] = {id(layer.module): _packed(layer) for layer in layers}
    packed = copy.deepcopy(model, memo).eval()
    for _, layer in packed_layers(packed):
        layer.native_signs = native_signs
    return packed


def packed_layers(model: nn.Module) -> Iterator[tuple[str, PackedLayer]]:
    """Names and modules of all packed layers."""
    for name, module in model.named_modules():
        if isinstance(module, PackedLayer):
            yield name, module


def packed_state(layer: BinaryLayer) -> dict[str, torch.Tensor]:
    """The packed tensors of a binarised layer: bits, scale, and mask or offset where the levels need them."""
    filters, method = layer.filters.detach(), layer.method
    rows = bits.filters_to_rows(method.binary(filters).to(torch.int8).cpu().numpy())
    state = {"scale": method.scale(filters).float()}
    if method.levels == "three":
        signs, mask = bits.pack_ternary(rows)
        state["mask"] = torch.from_numpy(mask)
    else:
        signs = bits.pack_bits(rows)
    offset = method.offset(filters)
    if offset is not None:
        state["offset"] = offset.float()
    return state | {"bits": torch.from_numpy(signs)}


def _packed(layer: BinaryLayer) -> PackedLayer:
    base = layer_kind(layer.module)
    assert base is not None  # binarize_ takes no other layer
    activation = layer.activation
    spec = Spec(
        name=layer.name,
        kind=base.__name__,
        shape=tuple(layer.filters.shape),
        method=layer.method.key,
        levels=layer.method.levels,
        activation=None if activation is None else activation.key,
        pad_value=0.0 if activation is None else activation.pad_value,
    )
    packed = KINDS[spec.kind](spec, layer.module, copy.deepcopy(activation))
    for name, value in packed_state(layer).items():
        getattr(packed, name).copy_(value)
    return packed
