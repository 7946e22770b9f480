"""`equibit::packed_conv` as torch sees it, and when packed layers use it."""

import copy
import dataclasses
import gc
import os
import subprocess
import sys

import pytest
import torch
from rounding import assert_rounding
from torch import nn

import equibit as eb
from equibit import kernels
from equibit.kernels import torch_layers
from equibit.kernels.torch_layers import Geometry, packed_conv, runs_natively

LAYERS = {
    "linear": (lambda: nn.Linear(70, 20), (3, 70)),
    "conv1d": (lambda: nn.Conv1d(4, 12, 3, groups=2, dilation=2), (2, 4, 9)),
    "conv2d": (lambda: nn.Conv2d(20, 16, (3, 5), 2, padding=(1, 2)), (2, 20, 9, 9)),
    "conv3d": (lambda: nn.Conv3d(2, 12, 3, padding=1, bias=False), (2, 2, 4, 4, 4)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 24, (3, 2), 2, (1, 0), 1, 2), (2, 4, 5, 4)),
}
METHODS = {"two": eb.Sign(), "offset": eb.AdaBin(), "three": eb.Sign(density=0.5)}


def packed(name="conv2d", method="two", activation=None):
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer, x = make(), torch.randn(shape)
    eb.binarize_(layer, METHODS[method], skip=eb.nothing, activation=activation)
    return eb.pack(layer, native_signs=True), x, layer.eval()


def count_layouts(monkeypatch):
    made = []
    lay_out = torch_layers._lay_out
    monkeypatch.setattr(torch_layers, "_lay_out", lambda *arguments: made.append(1) or lay_out(*arguments))
    return made


@pytest.mark.parametrize("activation", [None, "bireal"], ids=["1w32a", "1w1a"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", LAYERS)
def test_opcheck(name, method, activation, monkeypatch):
    """Schema, fake kernel and dispatch agree, for the very arguments that the layer gives."""
    module, x, layer = packed(name, method, activation)
    calls = []
    real = torch_layers.packed_conv

    def record(*arguments):
        calls.append(arguments)
        return real(*arguments)

    monkeypatch.setattr("equibit.packed.modules.packed_conv", record)
    assert_rounding(module(x), layer(x).detach())
    (arguments,) = calls
    x, tensors, geometry, *extra = arguments
    flat = (x, *tensors, *dataclasses.astuple(geometry), extra[0] if extra else ())
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(torch.ops.equibit.packed_conv.default, flat, test_utils=tests)


@pytest.mark.parametrize("name", LAYERS)
def test_compiles_without_a_break_and_exports(name):
    layer, x, _ = packed(name, "offset", "bireal")
    module = nn.Sequential(layer)  # torch 2.13 cannot export a root with a buffer that is None
    with torch.no_grad():
        expected = module(x)
        torch._dynamo.reset()
        assert torch.equal(torch.compile(module, fullgraph=True, backend="aot_eager")(x), expected)
        program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
        assert "packed_conv" in str(program.graph)
        assert torch.equal(program.module()(x), expected)
        assert torch.equal(program.module()(x[:1]), module(x[:1]))


def test_weights_are_laid_out_once(monkeypatch):
    layer, x, _ = packed()
    module, made = nn.Sequential(layer), count_layouts(monkeypatch)
    with torch.no_grad():
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
        program = torch.export.export(module, (x,)).module()
        for call in (module, compiled, program) * 2:
            call(x)
            module(x[:1, :, :7])
    assert len(made) == 1


def test_a_changed_tensor_is_laid_out_anew():
    module, x, _ = packed(method="offset")
    module(x)
    other = copy.deepcopy(module)
    for name in ("bits", "scale", "offset", "bias"):
        with torch.no_grad():
            getattr(module, name).copy_(getattr(module, name).flip(0))
        assert_rounding(module(x), module.compute(x, module.weight))
    module.scale = module.scale * 2
    assert_rounding(module(x), module.compute(x, module.weight))
    module.load_state_dict(other.state_dict())
    assert torch.equal(module(x), other(x))
    module.bits.data = module.bits.flip(0).contiguous()
    assert_rounding(module(x), module.compute(x, module.weight))


def test_layouts_live_as_long_as_the_layer_and_are_part_of_nothing():
    gc.collect()
    before = len(torch_layers._layouts)
    module, x, _ = packed()
    state = set(module.state_dict())
    module(x)
    assert set(module.state_dict()) == state
    assert len(torch_layers._layouts) == before + 1
    other = copy.deepcopy(module)
    assert len(torch_layers._layouts) == before + 1
    assert torch.equal(other(x), module(x))
    assert len(torch_layers._layouts) == before + 2
    del module, other
    gc.collect()
    assert len(torch_layers._layouts) == before


def test_inference_tensors_are_never_taken_for_unchanged():
    with torch.inference_mode():
        module, x, _ = packed()
        assert module.bits.is_inference()
        assert_rounding(module(x), module.compute(x, module.weight))
        module.bits.bitwise_not_()
        module.bits.copy_(eb.pack(packed()[2]).bits.flip(0))
        assert_rounding(module(x), module.compute(x, module.weight))
        assert len({id(key) for key in torch_layers._layouts if key is module.bits}) == 0


def test_which_inputs_run_natively():
    x, scale = torch.zeros(1, 2), torch.ones(3)
    assert runs_natively(x, scale)
    assert not runs_natively(x.double(), scale)
    assert not runs_natively(x.bfloat16(), scale)
    assert not runs_natively(x.to("meta"), scale)
    assert not runs_natively(x, scale.double())
    assert not runs_natively(x.clone().requires_grad_(), scale)
    with torch.no_grad():
        assert runs_natively(x.clone().requires_grad_(), scale)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not runs_natively(x, scale)


def test_a_gradient_reaches_the_input():
    module, x, layer = packed()
    for model in (module, layer):
        leaf = x.clone().requires_grad_()
        model(leaf).square().sum().backward()
        if model is module:
            gradient = leaf.grad
    assert torch.equal(gradient, leaf.grad)


@pytest.mark.parametrize("name", ["conv1d", "conv2d", "conv3d", "transposed"])
def test_inputs_without_a_batch_and_in_other_memory_formats(name):
    module, x, layer = packed(name)
    expected = layer(x).detach()
    assert_rounding(module(x[0]), expected[0])
    assert_rounding(module(x.flip(-1).flip(-1).transpose(0, 1).contiguous().transpose(0, 1)), expected)
    if x.dim() == 4:
        assert_rounding(module(x.to(memory_format=torch.channels_last)), expected)
    assert module(x[:0]).shape == (0, *expected.shape[1:])


def test_threads_are_those_of_torch():
    module, x, _ = packed()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        two = module(x)
    finally:
        torch.set_num_threads(threads)
    assert_rounding(two, module(x))


def test_direct_calls():
    bits = torch.zeros(3, 8, dtype=torch.uint8)
    x = torch.arange(10.0).reshape(2, 5)
    y = packed_conv(x, [bits, None, torch.ones(3), None, None], Geometry(channels=5))
    assert torch.equal(y, -x.sum(1, keepdim=True).expand(2, 3))  # clear bits are -1


CHILD = """
import torch, equibit as eb
from equibit.kernels import torch_layers
torch.manual_seed(0)
layer = torch.nn.Conv2d(20, 16, 3, padding=1)
x = torch.randn(2, 20, 8, 8)
eb.binarize_(layer, eb.Sign(), skip=eb.nothing)
packed = eb.pack(layer)
assert torch.allclose(packed(x), layer(x), atol=1e-4)
(layouts,) = torch_layers._layouts.values()
(layout,) = layouts.values()
print(layout.layer.level)
"""


def test_packed_layers_run_at_the_level_in_use():
    module, x, _ = packed()
    module(x)
    (layout,) = torch_layers._layouts[module.bits].values()
    assert layout.layer.level == kernels.active()


def test_packed_layers_run_at_a_forced_level():
    """Even at that of the plain loops, which are taken only where they are asked for."""
    environment = {**os.environ, "EQUIBIT_KERNEL": "portable"}
    child = subprocess.run(
        [sys.executable, "-c", CHILD], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert child.stdout.split() == ["portable"], child.stderr
