"""Every method through a user's life: compiled training steps, packing, the packed checkpoint and the ONNX file."""

import pytest
import torch
from torch.nn.functional import cross_entropy

import equibit as eb
from equibit.packed import packed_layers

LEVELS = {
    "adabin": "offset",
    "bi_half": "two",
    "group_transform": "two",
    "ir_net": "two",
    "multi_prize": "three",
    "recu": "two",
    "reste": "two",
    "sign": "two",
    "siman": "two",
}
X = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8)


def network():
    torch.manual_seed(0)
    return eb.models.create("digits_net", num_classes=10, in_shape=(1, 8, 8))


def train(model, forward, steps):
    optimizer = torch.optim.SGD(eb.param_groups(model, weight_decay=1e-4), lr=0.05, momentum=0.9)
    for step in range(steps):
        eb.advance(model, step / steps)
        optimizer.zero_grad()
        cross_entropy(forward(X), LABELS).backward()
        optimizer.step()


def test_every_method_is_here():
    assert eb.methods.list() == sorted(LEVELS)


@pytest.mark.parametrize("key", LEVELS)
def test_trained_packed_stored_exported_and_verified(key, tmp_path):
    model = network()
    report = eb.binarize_(model, key)
    assert report.binary
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model, model, steps=2)
    moved = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    assert any("parametrizations" in name for name in moved)
    model.eval()
    packed = eb.pack(model)
    assert torch.equal(packed(X), model(X))
    assert {layer.spec.levels for _, layer in packed_layers(packed)} == {LEVELS[key]}
    eb.save_packed(packed, tmp_path / "m.safetensors")
    assert torch.equal(eb.load_packed(tmp_path / "m.safetensors", network())(X), packed(X))
    eb.export_onnx(model, tmp_path / "m.onnx", X)
    check = eb.verify_onnx(model, tmp_path / "m.onnx", X)
    assert check.ok, check


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch of its own tracing
@pytest.mark.parametrize("key", LEVELS)
def test_a_compiled_step_is_compiled_once(key):
    model = network()
    eb.binarize_(model, key)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    train(model, compiled, steps=1)
    with torch.compiler.set_stance("fail_on_recompile"):
        train(model, compiled, steps=4)
