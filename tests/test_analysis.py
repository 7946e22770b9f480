"""Bit ratio, entropy and flips against closed forms; the summary against what is measured."""

import math

import pytest
import torch

import equibit as eb
from equibit.errors import InputError


def test_bit_ratio_and_entropy_closed_forms():
    weight = torch.tensor([[1.0, 1, 1, -1], [1, -1, 0, 0], [-1, -1, -1, -1], [0, 0, 0, 0]])
    assert eb.analysis.bit_ratio(weight).tolist() == [0.75, 0.5, 0, 0]
    quarter = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert eb.analysis.bit_entropy(weight).tolist() == pytest.approx([quarter, 1, 0, 0], abs=1e-15)
    assert float(eb.analysis.bit_ratio(weight, per="layer")) == 0.4
    assert eb.analysis.bit_ratio(weight[:, :, None, None]).tolist() == [0.75, 0.5, 0, 0]


def test_flip_rate_of_tensors_and_networks():
    a, b = torch.tensor([[1.0, -1, 0, 1]]), torch.tensor([[1.0, 1, 1, 1]])
    assert eb.analysis.flip_rate(a, b) == 0.5
    assert eb.analysis.flip_rate({"x": a, "y": a}, {"x": b, "y": a}) == 0.25


def test_ratio_and_entropy_of_a_network():
    network = {"a": torch.tensor([[1.0, 1], [1, -1]]), "b": torch.tensor([[1.0, 0, -1, -1, -1, 0]])}
    assert eb.analysis.bit_ratio(network).tolist() == [1, 0.5, 0.25]
    assert eb.analysis.bit_ratio(network, per="layer").tolist() == [0.75, 0.25]
    assert float(eb.analysis.bit_ratio(network, per="network")) == 0.5
    assert float(eb.analysis.bit_ratio(network["a"], per="network")) == 0.75
    quarter = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert eb.analysis.bit_entropy(network, per="layer").tolist() == pytest.approx([quarter, quarter], abs=1e-15)
    assert float(eb.analysis.bit_entropy(network, per="network")) == pytest.approx(1, abs=1e-15)


def test_dead_filters():
    weight = torch.tensor([[1.0, 1, 1], [-1, -1, 0], [0, 0, 0], [1, 0, -1], [1, -1, -1]])
    assert eb.analysis.dead_filters(weight).tolist() == [True, True, True, False, False]
    assert eb.analysis.dead_filters(weight[:, :, None, None]).tolist() == [True, True, True, False, False]


def test_weights_that_never_flip():
    snapshots = [torch.tensor([row]) for row in ([1.0, -1, 0, 1], [1, -1, 0, -1], [1, -1, 1, 1])]
    assert [eb.analysis.never_flipped(snapshots[:n]) for n in (1, 2, 3)] == [1, 0.75, 0.5]
    assert eb.analysis.never_flipped([{"x": s, "y": snapshots[0]} for s in snapshots]) == 0.75


def test_sign_agreement():
    binary, real = torch.tensor([[1.0, -1, 0, 1]]), torch.tensor([[0.0, -2, 3, -1]])
    assert eb.analysis.sign_agreement(binary, real) == pytest.approx(2 / 3)  # sign(0) is +1, a pruned weight has none
    assert eb.analysis.sign_agreement({"x": binary, "y": binary}, {"x": real, "y": binary}) == pytest.approx(5 / 6)
    assert eb.analysis.sign_agreement(torch.zeros(2, 2), torch.ones(2, 2)) == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: eb.analysis.bit_ratio({}),
        lambda: eb.analysis.never_flipped([]),
        lambda: eb.analysis.never_flipped([torch.ones(2), torch.ones(3)]),
        lambda: eb.analysis.sign_agreement(torch.randn(2, 2), torch.ones(2, 2)),
        lambda: eb.analysis.sign_agreement(torch.ones(2, 2), torch.ones(2, 3)),
        lambda: eb.analysis.bit_ratio(torch.randn(2, 3)),
        lambda: eb.analysis.bit_ratio(torch.ones(2, 3), per="channel"),
        lambda: eb.analysis.flip_rate({"x": torch.ones(2)}, {"y": torch.ones(2)}),
        lambda: eb.analysis.flip_rate({}, {}),
        lambda: eb.summary(eb.models.create("lenet5", in_shape=(1, 28, 28)), (1, 3, 32, 32)),
    ],
)
def test_bad_input(call):
    with pytest.raises(InputError):
        call()


NETWORKS = {
    "digits_net": ((1, 8, 8), {}),
    "lenet5": ((1, 28, 28), {}),
    "conv2": ((3, 32, 32), {}),
    "resnet18": ((3, 32, 32), {"block": "bireal"}),
}


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_summary_promises_what_the_files_measure(name, tmp_path):
    shape, options = NETWORKS[name]
    model = eb.models.create(name, in_shape=shape, **options)
    floats = eb.summary(model, (1, *shape))
    eb.binarize_(model, eb.BiHalf())
    info = eb.summary(model, (2, *shape))
    packed = eb.pack(model)
    assert info.parameters == floats.parameters == sum(p.numel() for p in model.parameters())
    assert info.binary_parameters == sum(w.numel() for w in eb.binary_weights(model).values())
    assert info.float_bytes == floats.float_bytes == floats.packed_bytes - 8 * norms(model)
    assert info.packed_bytes == sum(t.numel() * t.element_size() for t in packed.state_dict().values())
    assert info.macs_float + info.macs_binary == floats.macs_float
    onnx_bytes = eb.export_onnx(model, tmp_path / "m.onnx", torch.randn(1, *shape))
    assert abs(onnx_bytes - info.onnx_bytes) <= max(0.02 * info.onnx_bytes, 16 * 1024)  # the contract's bound
    again = eb.summary(packed, (2, *shape))
    assert (again.packed_bytes, again.onnx_bytes, again.macs_binary) == (
        info.packed_bytes,
        info.onnx_bytes,
        info.macs_binary,
    )


def test_summary_of_a_network_that_takes_integers():
    model = torch.nn.Sequential(torch.nn.Embedding(10, 8), torch.nn.Flatten(), torch.nn.Linear(32, 16))
    assert eb.summary(model, (1, 4), dtype=torch.long).macs_float == 32 * 16
    with pytest.raises(InputError, match="does not go through"):
        eb.summary(model, (1, 4))


def norms(model):
    return sum(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in model.modules())


def test_macs_closed_form():
    info = eb.summary(eb.models.create("lenet5", in_shape=(1, 28, 28)), (1, 1, 28, 28))
    assert info.macs_float == 24 * 24 * 32 * 25 + 8 * 8 * 64 * 32 * 25 + 1024 * 512 + 512 * 10
    assert "MACs" in info.table()


def test_bit_operations_closed_form():
    model = eb.models.create("lenet5", in_shape=(1, 28, 28))
    floats = eb.summary(model, (1, 1, 28, 28))
    conv1, conv2, fc1, head = 24 * 24 * 32 * 25, 8 * 8 * 64 * 32 * 25, 1024 * 512, 512 * 10
    assert floats.bops == 1024 * (conv1 + conv2 + fc1 + head)
    assert [p.layers for p in floats.precisions] == [4]
    eb.binarize_(model, "sign", activation="siman", overrides={"fc1": eb.BiHalf(density=0.5)})
    info = eb.summary(model, (1, 1, 28, 28))
    bits = [(p.weight_bits, p.activation_bits, p.layers, p.macs, p.bops) for p in info.precisions]
    assert bits == [(1, 1, 1, conv2, conv2), (2, 1, 1, fc1, 2 * fc1), (32, 32, 2, conv1 + head, 1024 * (conv1 + head))]
    assert info.bops == sum(p.bops for p in info.precisions)
    assert sum(p.parameters for p in info.precisions) <= info.parameters
    found = info.to_dict()
    assert found["bops"] == info.bops == sum(layer["bops"] for layer in found["layers"])
    assert "BOPs" in info.table()
    real = eb.models.create("lenet5", in_shape=(1, 28, 28))
    eb.binarize_(real, "bi_half")
    binary = next(p for p in eb.summary(real, (1, 1, 28, 28)).precisions if p.weight_bits == 1)
    assert (binary.activation_bits, binary.macs, binary.bops) == (32, conv2 + fc1, 32 * (conv2 + fc1))
