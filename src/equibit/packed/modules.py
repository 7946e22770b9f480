"""Layers that hold their weights as bits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equibit import bits
from equibit.activations import SignActivation
from equibit.errors import InputError, StateError
from equibit.kernels.torch_layers import Geometry, packed_conv, runs_natively
from equibit.layers import ACTIVATION, filters_first, swapped_groups
from equibit.methods.protocol import effective
from equibit.packed.onnx_ops import emit, operator

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@dataclass(frozen=True)
class Spec:
    """What a packed layer is, beside its tensors and the geometry of the float layer it replaces.

    Attributes:
        name: Name of the layer in the model.
        kind: Name of the layer type, an entry of `KINDS`.
        shape: Shape of the weight with filters first: (filters, channels of one filter, *kernel).
        method: Key of the method that made the weights.
        levels: `two`, `offset` or `three`.
        activation: Key of the sign activation before the layer, None for 1W32A.
        pad_value: What the convolution is padded with after that activation.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    method: str
    levels: str
    activation: str | None = None
    pad_value: float = 0.0


class PackedLayer(nn.Module):
    """A layer whose weight is 1 bit per element (2 when pruned), with a scale and an optional offset per filter.

    Buffers: `bits` uint8 (filters, row bytes), `mask` the same for three levels, `scale` float32 (filters,),
    `offset` float32 (filters,) or None, `bias` (filters,) or None. Rows are laid out as `equibit.bits` defines.
    They are zero until filled by `pack` or from a checkpoint.

    Args:
        spec: What the layer is.
        source: The float (or binarised) layer it replaces; gives bias, device and geometry.
        activation: The sign activation of a 1W1A layer.

    Attributes:
        native_signs: Whether a 1W1A layer runs on our kernels, see `equibit.pack`.
    """

    bits: Tensor
    mask: Tensor | None
    scale: Tensor
    offset: Tensor | None
    bias: Tensor | None

    def __init__(self, spec: Spec, source: nn.Module, activation: SignActivation | None) -> None:
        super().__init__()
        self.spec = spec
        self.swapped_groups = swapped_groups(source)
        filters, device = spec.shape[0], next(source.parameters()).device
        rows = torch.zeros(filters, bits.row_bytes(self.fan_in), dtype=torch.uint8, device=device)
        values = torch.zeros(filters, device=device)
        bias = cast(Tensor | None, source.bias)
        self.register_buffer("bits", rows)
        self.register_buffer("mask", rows.clone() if spec.levels == "three" else None)
        self.register_buffer("scale", values)
        self.register_buffer("offset", values.clone() if spec.levels == "offset" else None)
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        if activation is not None:
            self.add_module(ACTIVATION, activation)
        self.native_signs = False
        self.register_forward_pre_hook(_call_the_layer)
        self.eval()

    @property
    def fan_in(self) -> int:
        """Number of weights of one filter."""
        return torch.Size(self.spec.shape[1:]).numel()

    @property
    def activation(self) -> SignActivation | None:
        """The sign activation before the layer."""
        return cast(SignActivation | None, getattr(self, ACTIVATION, None))

    def filters(self) -> Tensor:
        """The unpacked binary weight, int8 with filters in dim 0, values -1/+1 (0 where pruned)."""
        signs = 2 * unpack(self.bits, self.fan_in) - 1
        if self.mask is not None:
            signs = signs * unpack(self.mask, self.fan_in)
        filters, channels, *kernel = self.spec.shape
        return signs.reshape(filters, *kernel, channels).movedim(-1, 1)

    def binary(self) -> Tensor:
        """The unpacked binary weight, int8 of the float weight's shape, values -1/+1 (0 where pruned)."""
        return filters_first(self.filters(), self.swapped_groups)

    @property
    def weight(self) -> Tensor:
        """The float32 effective weight, unpacked at every access: for code that reads `layer.weight`."""
        return self.effective_weight(torch.float32)

    def effective_weight(self, dtype: torch.dtype) -> Tensor:
        """scale * binary + offset in `dtype`, shaped as the float weight."""
        wide = torch.promote_types(dtype, torch.float32)
        offset = None if self.offset is None else self.offset.to(wide)
        filters = effective(self.filters().to(wide), self.scale.to(wide), offset)
        return filters_first(filters, self.swapped_groups).contiguous().to(dtype)

    def forward(self, input: Tensor) -> Tensor:
        """The float layer's forward, by the same names: our kernels where they take it, else the effective weight."""
        wanted = self.activation is None or self.native_signs
        return self.native(input) if wanted and runs_natively(input, self.scale) else self.dense(input)

    def dense(self, input: Tensor) -> Tensor:
        """The layer in torch's own operations, with the effective weight."""
        x = self.binarized(input)
        return self.compute(x, self.effective_weight(x.dtype))

    def signed(self, x: Tensor) -> Tensor:
        """What our kernels get: the input, or what they take the signs of."""
        if self.activation is not None:
            self.activation.check(x)
        return self.argument(x)

    def argument(self, x: Tensor) -> Tensor:
        """What the exported node gets: what the sign activation of a 1W1A layer takes the signs of, or the input."""
        return x if self.activation is None else self.activation.argument(x)

    def binarized(self, x: Tensor) -> Tensor:
        """The input behind the sign activation of a 1W1A layer, or as it is."""
        return x if self.activation is None else self.activation(x)

    def compute(self, x: Tensor, weight: Tensor) -> Tensor:
        """The layer's linear operation."""
        raise NotImplementedError

    def native(self, input: Tensor) -> Tensor:
        """The layer on our kernels."""
        raise NotImplementedError

    def export(self, input: Tensor) -> Tensor:
        """The layer as one ONNX node; `export_onnx` puts this in the place of `forward`."""
        raise NotImplementedError

    def check_input(self, x: Tensor, channels: int, axis: int) -> None:
        """Refuses an example that the layer could not compute with: an exported node does not look at its input.

        Raises:
            StateError: Another number of channels, or of dimensions.
        """
        dimensions = len(self.spec.shape) if axis == 1 else x.dim()
        if x.dim() != dimensions or x.shape[axis] != channels:
            raise StateError(
                f"layer {self.spec.name!r} got an input of shape {tuple(x.shape)}; it takes {channels} channels "
                f"in dimension {axis} of {dimensions}."
            )

    def tensors(self) -> list[Tensor | None]:
        """Bits, mask, scale, offset and bias."""
        return [self.bits, self.mask, self.scale, self.offset, self.bias]

    def constants(self) -> list[Tensor | None]:
        """The node's constant inputs, in order; a missing bias is exported as zeros, where batch norm can fold."""
        *tensors, bias = self.tensors()
        return [*tensors, torch.zeros_like(self.scale) if bias is None else bias]

    def extra_repr(self) -> str:
        """Shown by `print(model)`."""
        shape = "x".join(map(str, self.spec.shape))
        return f"{shape}, method={self.spec.method!r}, levels={self.spec.levels!r}"


class PackedLinear(PackedLayer):
    """Linear with packed weights: x (..., in) -> (..., out)."""

    def compute(self, x: Tensor, weight: Tensor) -> Tensor:
        """x W^T + bias."""
        return F.linear(x, weight, self.bias)

    def native(self, input: Tensor) -> Tensor:
        """Rows of the input at once."""
        self.check_input(input, self.spec.shape[1], -1)
        x = self.signed(input)
        geometry = Geometry(self.spec.shape[1], sign=self.activation is not None)
        y = packed_conv(x.reshape(-1, x.shape[-1]), self.tensors(), geometry)
        return y.reshape(*x.shape[:-1], self.spec.shape[0])

    def export(self, input: Tensor) -> Tensor:
        """One `equibit::...Linear` node."""
        self.check_input(input, self.spec.shape[1], -1)
        name = operator(self.spec.levels, "Linear", xnor=self.activation is not None)
        attributes = {"layer": self.spec.name, "shape": list(self.spec.shape)}
        return emit(name, self.argument(input), self.constants(), attributes, [*input.shape[:-1], self.spec.shape[0]])


class PackedConv(PackedLayer):
    """Conv1d/2d/3d with packed weights: x (N, C, *spatial) -> (N, filters, *spatial).

    Attributes:
        pads: Zeros (or what `padding_mode` says) around the input, last dimension first, begin and end in turn, as
            `F.pad` takes them; this form covers padding="same" with an even kernel too.
    """

    def __init__(self, spec: Spec, source: nn.Module, activation: SignActivation | None) -> None:
        super().__init__(spec, source, activation)
        conv = cast(nn.Conv2d, source)
        self.stride, self.dilation, self.groups = conv.stride, conv.dilation, conv.groups
        taken_over = activation is not None and activation.pads
        pads = tuple(conv._reversed_padding_repeated_twice)
        self.pads = (0,) * len(pads) if taken_over else pads
        self.padding_mode = conv.padding_mode

    def compute(self, x: Tensor, weight: Tensor) -> Tensor:
        """Pads by the layer's own mode, then convolves."""
        ends, begins = self.pads[::-2], self.pads[-2::-2]  # first dimension first
        padding: tuple[int, ...] = (0,) * len(begins)
        if self.padding_mode == "zeros" and begins == ends:
            padding = begins  # inside the convolution, so that the result is the float layer's bit for bit
        elif any(self.pads):
            x = F.pad(x, self.pads, mode="constant" if self.padding_mode == "zeros" else self.padding_mode)
        convolve = _CONV[len(padding)]
        return convolve(x, weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def padded(self, x: Tensor) -> tuple[Tensor, tuple[int, ...], tuple[int, ...]]:
        """The input after padding by a mode other than zeros, and the padding left to do: begins and ends."""
        pads = self.pads if self.activation is None or not self.activation.pads else self.activation.pads
        if self.padding_mode != "zeros":
            x, pads = F.pad(x, self.pads, mode=self.padding_mode), (0,) * len(self.pads)
        return x, pads[-2::-2], pads[::-2]

    def native(self, input: Tensor) -> Tensor:
        """The whole batch at once; an input without a batch axis is a batch of one."""
        axes = len(self.spec.shape) - 2
        if input.dim() == axes + 1:
            return self.native(input.unsqueeze(0)).squeeze(0)
        self.check_input(input, self.groups * self.spec.shape[1], 1)
        x, begins, ends = self.padded(self.signed(input))
        return packed_conv(x, self.tensors(), self.geometry(begins + ends))

    def geometry(self, pads: tuple[int, ...]) -> Geometry:
        """The layer for our kernels."""
        return Geometry(
            channels=self.spec.shape[1],
            groups=self.groups,
            kernel=self.spec.shape[2:],
            stride=self.stride,
            pads=pads,
            dilation=self.dilation,
            sign=self.activation is not None,
            pad_value=0 if self.activation is None else int(self.activation.pad_value),
        )

    def export(self, input: Tensor) -> Tensor:
        """One `equibit::...Conv` node; a padding mode other than zeros is a standard Pad before it."""
        self.check_input(input, self.groups * self.spec.shape[1], 1)
        x, begins, ends = self.padded(self.argument(input))
        filters, channels, *kernel = self.spec.shape
        axes = len(kernel)
        attributes: dict[str, Any] = {
            "layer": self.spec.name,
            "shape": [filters, *kernel, channels],
            "perm": [0, axes + 1, *range(1, axes + 1)],
            "strides": list(self.stride),
            "dilations": list(self.dilation),
            "pads": [*begins, *ends],
            "group": self.groups,
        }
        if self.activation is not None:
            attributes["pad_value"] = self.activation.pad_value
        geometry = zip(x.shape[2:], begins, ends, kernel, self.stride, self.dilation, strict=True)
        spatial = [(size + b + e - d * (k - 1) - 1) // s + 1 for size, b, e, k, s, d in geometry]
        name = operator(self.spec.levels, "Conv", xnor=self.activation is not None)
        return emit(name, x, self.constants(), attributes, [x.shape[0], filters, *spatial])


class PackedConvTranspose(PackedLayer):
    """ConvTranspose1d/2d/3d with packed weights: x (N, C, *spatial) -> (N, filters, *spatial)."""

    def __init__(self, spec: Spec, source: nn.Module, activation: SignActivation | None) -> None:
        super().__init__(spec, source, activation)
        conv = cast(nn.ConvTranspose2d, source)
        self.stride, self.dilation, self.groups = conv.stride, conv.dilation, conv.groups
        self.padding, self.output_padding = cast(tuple[int, ...], conv.padding), conv.output_padding

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """The float layer's forward; `output_size` chooses among the sizes that a strided layer can give."""
        run = self.native if runs_natively(input, self.scale) else self.dense
        return run(input, output_size)

    def dense(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """The layer in torch's own operations, with the effective weight."""
        x = self.binarized(input)
        return self.compute(x, self.effective_weight(x.dtype), output_size)

    def native(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """The whole batch at once; an input without a batch axis is a batch of one."""
        axes = len(self.spec.shape) - 2
        if input.dim() == axes + 1:
            return self.native(input.unsqueeze(0), output_size).squeeze(0)
        self.check_input(input, self.groups * self.spec.shape[1], 1)
        geometry = Geometry(
            channels=self.spec.shape[1],
            groups=self.groups,
            kernel=self.spec.shape[2:],
            stride=self.stride,
            pads=self.padding * 2,
            dilation=self.dilation,
            transposed=True,
            sign=self.activation is not None,
        )
        return packed_conv(self.signed(input), self.tensors(), geometry, self.extra(input, output_size))

    def compute(self, x: Tensor, weight: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """The transposed convolution."""
        convolve, extra = _CONV_TRANSPOSE[len(self.stride)], self.extra(x, output_size)
        return convolve(x, weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation)

    def smallest(self, x: Tensor) -> list[int]:
        """Spatial size of the output without output padding: (size - 1) stride - 2 padding + dilation (k - 1) + 1."""
        kernel = self.spec.shape[2:]
        geometry = zip(x.shape[-len(kernel) :], self.stride, self.padding, self.dilation, kernel, strict=True)
        return [(size - 1) * s - 2 * p + d * (k - 1) + 1 for size, s, p, d, k in geometry]

    def extra(self, x: Tensor, output_size: Sequence[int] | None) -> list[int]:
        """Output padding: the layer's own, or what makes the output as large as asked.

        Raises:
            InputError: The layer cannot give an output of that size.
        """
        if output_size is None:
            return list(self.output_padding)
        smallest = self.smallest(x)
        extra = [wanted - least for wanted, least in zip(output_size[-len(smallest) :], smallest, strict=False)]
        if len(extra) < len(smallest) or not all(0 <= e < s for e, s in zip(extra, self.stride, strict=True)):
            largest = [least + s - 1 for least, s in zip(smallest, self.stride, strict=True)]
            raise InputError(
                f"layer {self.spec.name!r} cannot give output_size={tuple(output_size)} for an input of shape "
                f"{tuple(x.shape)}; spatial sizes from {smallest} to {largest} are possible."
            )
        return extra

    def export(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """One `equibit::...ConvTranspose` node."""
        filters, channels, *kernel = self.spec.shape
        self.check_input(input, self.groups * channels, 1)
        axes, extra = len(kernel), self.extra(input, output_size)
        attributes: dict[str, Any] = {
            "layer": self.spec.name,
            "shape": [filters, *kernel, channels],
            "perm": [0, axes + 2, 1, *range(2, axes + 2)],
            "strides": list(self.stride),
            "dilations": list(self.dilation),
            "pads": [*self.padding, *self.padding],
            "output_padding": extra,
            "group": self.groups,
        }
        spatial = [least + more for least, more in zip(self.smallest(input), extra, strict=True)]
        name = operator(self.spec.levels, "ConvTranspose", xnor=self.activation is not None)
        return emit(name, self.argument(input), self.constants(), attributes, [input.shape[0], filters, *spatial])


def _call_the_layer(_layer: nn.Module, _args: tuple[Any, ...]) -> None:
    """A hook that does nothing but be there: torch's TransformerEncoderLayer then calls its layers.

    In eval mode it would read their weights instead, past the sign activation and past `export`.
    """


def unpack(packed: Tensor, n: int) -> Tensor:
    """uint8 (rows, row bytes) -> the first n bits of each row as int8 0/1, least significant bit first."""
    shifts = torch.arange(8, dtype=torch.uint8, device=packed.device)
    spread = packed.unsqueeze(-1).bitwise_right_shift(shifts).bitwise_and(1)
    return spread.flatten(1)[:, :n].to(torch.int8)


KINDS: Mapping[str, type[PackedLayer]] = {
    "Linear": PackedLinear,
    "Conv1d": PackedConv,
    "Conv2d": PackedConv,
    "Conv3d": PackedConv,
    "ConvTranspose1d": PackedConvTranspose,
    "ConvTranspose2d": PackedConvTranspose,
    "ConvTranspose3d": PackedConvTranspose,
}
