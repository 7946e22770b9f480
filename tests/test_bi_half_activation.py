"""The `bi_half` activation: equal bits per channel in training, a threshold per channel everywhere else."""

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from reference_methods import bi_half_activation as reference
from rounding import assert_rounding
from torch import nn

import equibit as eb
from equibit.activations import BiHalfSign
from equibit.errors import InputError
from equibit.packed import packed_layers

# layer -> shape of an input, dimension of the channels
LAYERS = {
    "linear": (lambda: nn.Linear(6, 4), (7, 6), 1),
    "linear on a sequence": (lambda: nn.Linear(6, 4), (3, 5, 6), 2),
    "linear on a vector": (lambda: nn.Linear(6, 4), (6,), 0),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, padding=1), (3, 4, 5), 1),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3, padding=1), (2, 4, 5, 3), 1),
    "conv2d without batch": (lambda: nn.Conv2d(4, 6, 3, padding=1), (4, 5, 3), 0),
    "transposed 2d": (lambda: nn.ConvTranspose2d(4, 6, 3), (2, 4, 3, 3), 1),
}


def attached(layer, dtype=torch.float64):
    activation = BiHalfSign()
    activation.attach(layer.to(dtype))
    return activation


@pytest.mark.parametrize("name", LAYERS)
def test_training_follows_the_reference(name):
    make, shape, axis = LAYERS[name]
    activation = attached(make())
    running = np.zeros(shape[axis])
    for seed in range(4):
        x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + seed
        if seed % 2:
            x = (x * 2).round() / 2 * -0.5  # ties, zeros of both signs
        signs, running = reference.training(x.numpy(), axis, running)
        with torch.no_grad():
            found = activation.signs(activation.argument(x))
        assert np.array_equal(found, signs)
        # 0.9 a + 0.1 b and a + 0.1 (b - a) differ by a rounding or two.
        np.testing.assert_allclose(activation.running_median, running, rtol=1e-14, atol=1e-15)


def test_worked_by_hand():
    activation = BiHalfSign()
    x = torch.tensor([[0.5, -0.0], [2.0, 0.0], [-3.0, 0.0], [0.5, -1.0]], requires_grad=True)
    y = activation(x)
    assert y.tolist() == [[-1, -1], [1, 1], [-1, 1], [1, -1]]  # of equal values the first; -0.0 equals 0.0
    (y * torch.tensor([1.0, 10.0])).sum().backward()
    assert x.grad.tolist() == [[1, 10], [0, 10], [0, 10], [1, 0]]  # 1 inside (-1, 1)
    assert activation.running_median.tolist() == pytest.approx([0.05, 0.0])
    assert activation.eval()(torch.tensor([[0.05, -0.1], [0.04, -0.0]])).tolist() == [[1, -1], [-1, 1]]


@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_every_channel_has_equal_bits(n):
    y = BiHalfSign()(torch.randn(n, 5, 1) - 3)
    assert ((y < 0).sum(0) == n // 2).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_types_and_memory_formats(dtype):
    x = torch.randn(4, 6, 5, 5).to(dtype)
    one, other = BiHalfSign(), BiHalfSign()
    y = one(x)
    assert y.dtype == dtype
    assert torch.equal(y, other(x.to(memory_format=torch.channels_last)))
    assert torch.equal(y, BiHalfSign()(x.float()).to(dtype))  # half types are ordered as float32
    assert torch.equal(one.running_median, other.running_median)
    y = one.eval()(x)
    assert y.dtype == dtype
    assert torch.equal(y > 0, x >= one.running_median.view(-1, 1, 1))


def edges(m):
    """Values around a threshold, among them its neighbours, subnormal ones too."""
    m = np.float32(m)
    ends = np.float32([-np.inf, np.inf])
    near = [np.nextafter(m, ends[0]), m, np.nextafter(m, ends[1]), -m, np.float32(0), np.float32(-0.0)]
    return np.array([*near, *ends, 3e38, -3e38, 1e-45, -1e-45, 1.2e-38], dtype=np.float32)


MEDIANS = [0.0, -0.0, 1.0, -0.1, 1e-38, -1.2e-38, 1e-45, 3e38, 1e-7]


def test_the_threshold_is_exact_in_eval_packed_and_exported(tmp_path):
    """x >= m has the sign of x - m because differences of floats that are not equal are not 0 (gradual underflow)."""
    layer = nn.Linear(len(MEDIANS), 1, bias=False)
    nn.init.ones_(layer.weight)
    eb.binarize_(layer, eb.Sign(scale="none"), activation="bi_half", skip=eb.nothing)
    layer.sign_activation.running_median.copy_(torch.tensor(MEDIANS))
    rows = torch.from_numpy(np.stack([edges(m) for m in MEDIANS], axis=1))
    wanted = torch.where(rows >= torch.tensor(MEDIANS), 1.0, -1.0).sum(1, keepdim=True)
    layer.eval()
    assert torch.equal(layer(rows), wanted)
    assert_rounding(eb.pack(layer)(rows), wanted)
    eb.export_onnx(layer, tmp_path / "m.onnx", torch.randn(2, len(MEDIANS)))
    for runtime in (eb.runtime, onnxruntime):
        session = runtime.InferenceSession(str(tmp_path / "m.onnx"))
        assert np.array_equal(session.run(None, {"input": rows.numpy()})[0], wanted.numpy())


# --- a network -------------------------------------------------------------------------------------------------------


def float_network():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, padding=1, stride=2, bias=False),
        nn.ConvTranspose2d(8, 4, 2),
        nn.Flatten(),
        nn.Linear(64, 20),
        nn.Linear(20, 10),
    )


def network(pad_value=0.0, seed=0):
    torch.manual_seed(seed)
    model = float_network()
    eb.binarize_(model, "bi_half", activation=eb.activations.create("bi_half", pad_value))
    return model


X = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(1)) + 0.3


def train(model, steps=3):
    optimizer = torch.optim.SGD(eb.param_groups(model, weight_decay=0), lr=0.1)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X), torch.arange(16) % 10).backward()
        optimizer.step()
    return model


def test_from_training_to_the_file(tmp_path):
    model = train(network(pad_value=-1)).eval()
    medians = [m for name, m in model.state_dict().items() if name.endswith("running_median")]
    assert [len(m) for m in medians] == [8, 8, 8, 64]
    assert all((m != 0).any() for m in medians)
    packed = eb.pack(model)
    assert_rounding(packed(X), model(X))
    eb.save_packed(packed, tmp_path / "m.safetensors")
    assert_rounding(eb.load_packed(tmp_path / "m.safetensors", float_network())(X), model(X))
    eb.export_onnx(model, tmp_path / "m.onnx", X[:1])
    check = eb.verify_onnx(model, tmp_path / "m.onnx", X)
    assert check.ok
    assert len(check.layers) == 4


def test_verify_finds_a_changed_threshold(tmp_path):
    model = train(network()).eval()
    eb.export_onnx(model, tmp_path / "m.onnx", X[:1])
    proto = onnx.load(tmp_path / "m.onnx")
    subtraction = next(node for node in proto.graph.node if node.op_type == "Sub")
    tensor = next(t for t in proto.graph.initializer if t.name == subtraction.input[1])
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + 0.5, tensor.name))
    onnx.save(proto, tmp_path / "m.onnx")
    check = eb.verify_onnx(model, tmp_path / "m.onnx", X)
    assert not check.ok
    assert not all(layer.input_ok for layer in check.layers)


def test_a_state_dict_brings_the_medians():
    model = train(network())
    other = network(seed=3)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(X), model.eval()(X))


def test_the_thresholds_lie_with_the_packed_layers():
    for _, layer in packed_layers(eb.pack(train(network()))):
        assert layer.activation.running_median.abs().max() > 0


def test_a_half_precision_network_stays_one():
    model = train(network()).to(torch.bfloat16).eval()
    assert model(X.bfloat16()).dtype == torch.bfloat16


def test_an_input_without_negative_values_is_refused():
    """Training would hide that the threshold behind a ReLU is near 0, where the eval sign is the constant +1."""
    with pytest.raises(InputError, match="no negative value"):
        BiHalfSign()(torch.rand(4, 3))


def test_a_training_step_compiles_whole_and_once():
    model = network()
    train(model, 1)  # the first eager input is looked at
    torch._dynamo.reset()
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        train(compiled, 3)
    train(model, 3)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[f"_orig_mod.{name}"], value)
