from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

def available() -> list[str]: ...
def active() -> str: ...
def pack_bits(values: NDArray[Any]) -> NDArray[np.uint8]: ...
def unpack_f32(packed: NDArray[np.uint8], n: int) -> NDArray[np.float32]: ...
def unpack_f64(packed: NDArray[np.uint8], n: int) -> NDArray[np.float64]: ...
def unpack_i8(packed: NDArray[np.uint8], n: int) -> NDArray[np.int8]: ...
def xnor_linear(
    x_bits: NDArray[np.uint8], w_bits: NDArray[np.uint8], n: int, w_mask: NDArray[np.uint8] | None
) -> NDArray[np.int32]: ...
def xnor_conv2d(
    x_bits: NDArray[np.uint8],
    w_bits: NDArray[np.uint8],
    w_mask: NDArray[np.uint8] | None,
    in_channels: int,
    kernel_size: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    pad_value: int,
) -> NDArray[np.int32]: ...
def select(
    values: Any,  # arrays and tensors, by DLPack
    out: Any,
    low: int,
    middle: int,
    levels: Sequence[float],
    magnitude: bool,
    taps: int,
    threads: int,
) -> None: ...
