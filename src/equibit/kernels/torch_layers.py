"""Packed layers as a torch operator: `equibit::packed_conv`, forward only, on the CPU in float32.

The weights of a layer are laid out for the kernels once: a layout belongs to the tensor of its bits and lives as long
as that does. It is made anew where a tensor was changed, and is part of no state dict, copy or traced graph.
"""

import dataclasses
import itertools
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from equibit.kernels import _core

torch.library.define(
    "equibit::packed_conv",
    "(Tensor x, Tensor bits, Tensor? mask, Tensor scale, Tensor? offset, Tensor? bias, int channels, int groups, "
    "int[] kernel, int[] stride, int[] pads, int[] dilation, bool transposed, bool sign, int pad_value, "
    "SymInt[] output_padding) -> Tensor",
)


@dataclass(frozen=True)
class Geometry:
    """What a packed layer does beside its tensors; sequences have one entry per spatial axis, none for a linear layer.

    The operator takes these in this order, after the tensors.

    Attributes:
        channels: Channels of one group of the input.
        groups: Groups of channels and of filters.
        kernel: Size of the kernel.
        stride: Steps between outputs.
        pads: Places added before each axis, then after each; of a transposed convolution what is cropped.
        dilation: Steps between taps.
        transposed: Whether the layer is a transposed convolution.
        sign: Whether the input is binarised first (1W1A).
        pad_value: What added places read behind the sign: -1, 0 or 1.
    """

    channels: int
    groups: int = 1
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    transposed: bool = False
    sign: bool = False
    pad_value: int = 0


def runs_natively(x: Tensor, scale: Tensor) -> bool:
    """Whether `packed_conv` takes the input: float32 on the CPU, no gradient, and kernels faster than torch's own."""
    return (
        x.device.type == "cpu"
        and x.dtype == scale.dtype == torch.float32
        and not (torch.is_grad_enabled() and x.requires_grad)
        and not torch.is_autocast_enabled("cpu")
        and not torch.onnx.is_in_onnx_export()
        and _runs_fast()
    )


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _runs_fast() -> bool:
    return _core.runs_fast()


def packed_conv(
    x: Tensor, tensors: Sequence[Tensor | None], geometry: Geometry, output_padding: Sequence[int] = ()
) -> Tensor:
    """A linear layer, convolution or transposed convolution with packed weights; no gradient.

    Args:
        x: float32 (N, groups * channels, *spatial) on the CPU.
        tensors: Bits, mask, scale, offset and bias of a packed layer; None where it has none.
        geometry: What the layer does.
        output_padding: Of a transposed convolution.

    Returns:
        float32 (N, filters, *spatial), contiguous.
    """
    arguments = (getattr(geometry, field.name) for field in dataclasses.fields(geometry))
    return torch.ops.equibit.packed_conv.default(x, *tensors, *arguments, output_padding)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Layout:
    """Weights laid out for the kernels, and the state of the tensors that they were made of."""

    layer: _core.Convolution
    tensors: tuple[Tensor | None, ...]  # without the bits, which the layout must not keep alive
    state: tuple[tuple[int, int] | None, ...]

    def holds(self, bits: Tensor, others: tuple[Tensor | None, ...]) -> bool:
        same = all(kept is given for kept, given in zip(self.tensors, others, strict=True))
        return same and self.state == _state(bits, *others)


_Key = tuple[Geometry, tuple[int, ...]]
_layouts = cast(MutableMapping[Tensor, dict[_Key, _Layout]], WeakTensorKeyDictionary())  # by the bits


def _state(*tensors: Tensor | None) -> tuple[tuple[int, int] | None, ...]:
    return tuple(None if t is None else (t.data_ptr(), t._version) for t in tensors)


def _three(values: Sequence[int], fill: int) -> tuple[int, ...]:
    return (*itertools.repeat(fill, 3 - len(values)), *values)


def _lay_out(
    bits: Tensor, others: tuple[Tensor | None, ...], geometry: Geometry, output_padding: Sequence[int]
) -> _core.Convolution:
    g, axes = geometry, len(geometry.kernel)
    mask, scale, offset, bias = (None if t is None else t.detach().contiguous() for t in others)
    return _core.Convolution(
        bits.detach().contiguous(), mask, scale, offset, bias,
        kernel=_three(g.kernel, 1), stride=_three(g.stride, 1), dilation=_three(g.dilation, 1),
        pads_begin=_three(g.pads[:axes], 0), pads_end=_three(g.pads[axes:], 0), channels=g.channels, groups=g.groups,
        transposed=g.transposed, output_padding=_three(output_padding, 0), input="sign" if g.sign else "real",
        pad_value=g.pad_value,
    )  # fmt: skip


def _layer(
    bits: Tensor, others: tuple[Tensor | None, ...], geometry: Geometry, output_padding: tuple[int, ...]
) -> _core.Convolution:
    if any(t is not None and t.is_inference() for t in (bits, *others)):
        return _lay_out(bits, others, geometry, output_padding)  # nothing says when such a tensor changes
    known = _layouts.setdefault(bits, {})
    key = (geometry, output_padding)
    layout = known.get(key)
    if layout is None or not layout.holds(bits, others):
        layout = known[key] = _Layout(_lay_out(bits, others, *key), others, _state(bits, *others))
    return layout.layer


def _geometry(arguments: Sequence[Any]) -> tuple[Geometry, tuple[int, ...]]:
    """The operator's arguments after the tensors."""
    values: list[Any] = [tuple(a) if isinstance(a, (list, tuple)) else a for a in arguments]
    return Geometry(*values[:-1]), values[-1]


def _packed_conv_cpu(
    x: Tensor,
    bits: Tensor,
    mask: Tensor | None,
    scale: Tensor,
    offset: Tensor | None,
    bias: Tensor | None,
    *arguments: object,
) -> Tensor:
    layer = _layer(bits, (mask, scale, offset, bias), *_geometry(arguments))
    axes = x.dim() - 2
    input_size = _three(x.shape[2:], 1)
    y = x.new_empty(x.shape[0], bits.shape[0], *layer.output_size(input_size)[3 - axes :])
    layer.run(x.detach().contiguous(), None, y, x.shape[0], input_size, torch.get_num_threads())
    return y


def _packed_conv_fake(x: Tensor, bits: Tensor, *others: object) -> Tensor:
    g, output_padding = _geometry(others[4:])  # after mask, scale, offset and bias
    spatial = []
    for axis, (size, k, s, d) in enumerate(zip(x.shape[2:], g.kernel, g.stride, g.dilation, strict=True)):
        both, reach = g.pads[axis] + g.pads[axis + len(g.kernel)], d * (k - 1) + 1
        extra = output_padding[axis] if g.transposed else 0
        spatial.append((size - 1) * s - both + reach + extra if g.transposed else (size + both - reach) // s + 1)
    return x.new_empty(x.shape[0], bits.shape[0], *spatial)


torch.library.impl("equibit::packed_conv", "CPU", _packed_conv_cpu)
torch.library.register_fake("equibit::packed_conv", _packed_conv_fake)
