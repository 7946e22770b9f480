"""verify_onnx: ok for the right file, and for no other."""

import copy
import json

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import equibit as eb
from equibit.errors import FileError, FormatError, InputError
from equibit.export import LayerCheck


class Network(nn.Module):
    """Every kind of constant a file can have wrong: float, two-level, three-level layers, batch norm."""

    def __init__(self, head=4):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv, self.fold = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.hidden, self.head = nn.Linear(288, 16), nn.Linear(16, head)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        return self.head(self.hidden(self.fold(self.conv(x)).flatten(1)).relu())


def network(seed=0):
    torch.manual_seed(seed)
    model = Network()
    for norm in (model.norm, model.fold):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    eb.binarize_(model, "bi_half", overrides={"hidden": eb.BiHalf(density=0.5)})
    return model


X = torch.randn(40, 1, 6, 6, generator=torch.Generator().manual_seed(1))
BITS, SCALE, BIAS = 1, 2, 3  # positions among the inputs of a two-level node
MASK = 2  # and of a three-level one


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def file(tmp_path_factory, model):
    path = tmp_path_factory.mktemp("verify") / "m.onnx"
    eb.export_onnx(model, path, X[:1])
    return path


def edited(file, tmp_path, change):
    proto = onnx.load(file)
    change(proto)
    onnx.save(proto, tmp_path / "edited.onnx")
    return tmp_path / "edited.onnx"


def constant(node, position, index, new):
    """An edit of one entry of a constant input; a standard node is found by its operator or by an input of it."""

    def change(proto):
        found = next(n for n in proto.graph.node if node in (n.name, n.op_type, *n.input))
        tensor = next(t for t in proto.graph.initializer if t.name == found.input[position])
        values = numpy_helper.to_array(tensor).copy()
        values[index] = new(values[index])
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    return change


def pads(proto):
    node = next(n for n in proto.graph.node if n.name == "conv")
    next(a for a in node.attribute if a.name == "pads").ints[:] = [0, 0, 2, 2]


DAMAGE = {
    "bit of the convolution": constant("conv", BITS, (3, 5), lambda v: v ^ 4),
    "padding bit": constant("conv", BITS, (3, 15), lambda v: v ^ 128),
    "bit of the pruned layer": constant("hidden", BITS, (15, 0), lambda v: v ^ 1),
    "bit of the mask": constant("hidden", MASK, (0, 35), lambda v: v ^ 128),
    "scale of a filter": constant("conv", SCALE, 2, lambda v: v * 1.1),
    "scale NaN": constant("conv", SCALE, 2, lambda v: v * np.nan),
    "all scales": constant("conv", SCALE, slice(None), lambda v: -v),
    "bias of a filter": constant("conv", BIAS, 2, lambda v: v + 0.1),
    "bias infinite": constant("conv", BIAS, 2, lambda v: v - np.inf),
    "padding of the convolution": pads,
    "weight of the first layer": constant("Conv", 1, (0, 0, 1, 1), lambda v: v + 0.1),
    "bias of the last layer": constant("Gemm", 2, 1, lambda v: v + 0.1),
    "bias of the last layer NaN": constant("Gemm", 2, 1, lambda v: v * np.nan),
}


def test_the_right_file_is_ok(file, model):
    for same in (model, eb.pack(model)):
        check = eb.verify_onnx(same, file, X)
        assert check.ok
        assert (check.agreement, check.n) == (1, 40)
        assert 0 <= check.max_abs_error < check.tolerance / 100  # the tolerance is no tight fit
        assert [(layer.name, layer.ok) for layer in check.layers] == [("conv", True), ("hidden", True)]
        assert json.loads(json.dumps(check.to_dict()))["n"] == 40


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_changed_file_is_not_ok(file, model, tmp_path, damage):
    check = eb.verify_onnx(model, edited(file, tmp_path, DAMAGE[damage]), X)
    assert not check.ok
    wrong = [layer.name for layer in check.layers if not layer.bits_equal]
    in_hidden = damage in ("bit of the pruned layer", "bit of the mask")
    assert wrong == (["hidden"] if in_hidden else ["conv"] if "bit" in damage else [])


def test_an_edit_that_changes_nothing_is_ok(file, model, tmp_path):
    assert eb.verify_onnx(model, edited(file, tmp_path, constant("conv", SCALE, 2, lambda v: v)), X).ok


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_outputs_that_are_not_finite_are_never_ok(file, model, tmp_path, value):
    other = copy.deepcopy(model)
    other.head.bias.data[1] = value
    path = edited(file, tmp_path, constant("Gemm", 2, 1, lambda _: value))
    for subject in (model, other):  # in the file only, and in both
        check = eb.verify_onnx(subject, path, X)
        assert not check.ok
        assert check.max_abs_error == np.inf
    assert not eb.verify_onnx(other, file, X).ok


def test_infinite_tolerances_allow_nothing():
    assert LayerCheck("x", bits_equal=True, max_abs_error=1.0, tolerance=2.0, input_ok=True).ok
    assert not LayerCheck("x", bits_equal=True, max_abs_error=np.inf, tolerance=np.inf, input_ok=True).ok


def test_another_prediction_is_not_ok_however_close(file, model, tmp_path):
    tied = copy.deepcopy(model)
    tied.head.weight.data[1], tied.head.bias.data[:2] = tied.head.weight.data[0], 50.0
    same = edited(file, tmp_path, constant("Gemm", 1, 1, lambda _: tied.head.weight.data[0].numpy()))
    for second, agreement in ((50.0, 1.0), (50.001, 0.0)):
        path = edited(same, tmp_path, constant("Gemm", 2, slice(0, 2), lambda _, b=second: [50.0, b]))
        check = eb.verify_onnx(tied, path, X)
        assert check.max_abs_error < check.tolerance
        assert check.agreement == agreement
        assert check.ok is (agreement == 1)


def test_the_file_of_another_model(file, model, tmp_path):
    check = eb.verify_onnx(network(seed=1), file, X)
    assert not check.ok
    assert check.agreement < 1
    assert not any(layer.bits_equal for layer in check.layers)
    wider = Network(head=5)
    eb.binarize_(wider, "bi_half", overrides={"hidden": eb.BiHalf(density=0.5)})
    with pytest.raises(FormatError, match=r"m\.onnx gives outputs of the shapes .*4.*5"):
        eb.verify_onnx(wider, file, X)
    fewer = Network()
    eb.binarize_(fewer, "bi_half", overrides={"hidden": None})
    with pytest.raises(FormatError, match=r"m\.onnx has the layers \['hidden'\]"):
        eb.verify_onnx(fewer, file, X)
    more = Network()
    eb.binarize_(more, "bi_half", skip=eb.nothing)
    with pytest.raises(FormatError, match=r"lacks \['stem', 'head'\]"):
        eb.verify_onnx(more, file, X)


def test_every_input_counts(file, model, tmp_path):
    inputs = torch.zeros(300, 1, 6, 6)
    inputs[-1] = 5.0
    path = edited(file, tmp_path, DAMAGE["weight of the first layer"])  # which zeros do not see
    assert eb.verify_onnx(model, path, inputs[:-1]).ok
    check = eb.verify_onnx(model, path, inputs)
    assert not check.ok
    assert check.n == 300


def test_a_sign_that_turns_on_a_rounding_error_is_no_failure(tmp_path):
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(3, 3))
    with torch.no_grad():
        model[0].weight[0], model[0].bias[0] = 0, 0  # the sign of exactly 0
    eb.binarize_(model, "sign", activation="sign")
    path, x = tmp_path / "m.onnx", torch.randn(20, 4)
    eb.export_onnx(model, path, x)
    assert eb.verify_onnx(model, path, x).max_abs_error < 1e-5
    for change, ok in ((-1e-7, True), (-0.1, False)):
        check = eb.verify_onnx(model, edited(path, tmp_path, constant("0.bias", 2, 0, lambda v, c=change: v + c)), x)
        assert check.max_abs_error > 0.1  # the sign turned
        assert check.ok is ok
        assert check.layers[0].input_ok is ok
    for wrong in (constant("1", BIAS, 0, lambda v: v + 0.1), constant("2.bias", 2, 0, lambda v: v + 0.1)):
        assert not eb.verify_onnx(model, edited(path, tmp_path, wrong), x).ok


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (X[:0], "at least one input"),
        ((), "at least one input"),
        (torch.tensor(1.0), "at least one input"),
        (X[:, :, :5], "does not take these inputs"),
        (X.double(), "does not take these inputs"),
        ((X, X), "1 input"),
    ],
)
def test_inputs_that_the_file_does_not_take(file, model, inputs, message):
    with pytest.raises(InputError, match=message):
        eb.verify_onnx(model, file, inputs)


def test_inputs_that_the_model_does_not_take(file):
    class Flat(Network):
        def forward(self, x):
            return super().forward(x.reshape(1, 2, 3))

    model = Flat()
    eb.binarize_(model, "bi_half")
    with pytest.raises(InputError, match="the model does not take these inputs"):
        eb.verify_onnx(model, file, X)


def test_files_that_cannot_be_read(file, model, tmp_path):
    with pytest.raises(FileError, match="none"):
        eb.verify_onnx(model, tmp_path / "none.onnx", X)
    (tmp_path / "cut.onnx").write_bytes(file.read_bytes()[:-200])
    with pytest.raises(FormatError, match=r"cut\.onnx"):
        eb.verify_onnx(model, tmp_path / "cut.onnx", X)


def test_verifying_leaves_the_model_as_it_was(file):
    model, packed = network(), eb.pack(network())
    before = copy.deepcopy(model.state_dict())
    for subject in (model, packed):
        hooks = [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in subject.modules()]
        eb.verify_onnx(subject, file, X)
        assert hooks == [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in subject.modules()]
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_a_deep_network_with_binary_activations(tmp_path):
    torch.manual_seed(0)
    model = eb.models.create("resnet18", num_classes=10, in_shape=(3, 32, 32), block="bireal")
    eb.binarize_(model, "bi_half", activation=eb.activations.create("bireal", -1))
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.5, 2)
    x = torch.randn(32, 3, 32, 32)  # some sign turns on a rounding error in this many, and the rest follows
    eb.export_onnx(model, tmp_path / "m.onnx", x[:2])
    check = eb.verify_onnx(model, tmp_path / "m.onnx", x)
    assert check.ok
    assert check.agreement > 0.8
    assert len(check.layers) == 19
