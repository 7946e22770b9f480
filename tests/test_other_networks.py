"""Networks of other people: what binarises, trains, packs and exports as it comes, and what stays float, and why."""

import copy

import onnx
import pytest
import torch
from rounding import assert_rounding
from torch import nn

import equibit as eb
from equibit.errors import InputError
from equibit.packed import packed_layers


def resnet(transformers):
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5
    )
    return transformers.ResNetForImageClassification(config)


def convnext(transformers):
    config = transformers.ConvNextConfig(num_stages=2, hidden_sizes=[8, 16], depths=[1, 1], num_labels=5)
    return transformers.ConvNextForImageClassification(config)


def vit(transformers):
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        num_labels=5,
    )
    return transformers.ViTForImageClassification(config)


# name -> (network, number of binary layers, layers that stay float)
TRANSFORMERS = {
    "resnet": (resnet, 5, {"resnet.embedder.embedder.convolution", "classifier.1"}),
    "convnext": (convnext, 7, {"convnext.embeddings.patch_embeddings", "classifier"}),
    "vit": (vit, 6, {"vit.embeddings", "vit.embeddings.patch_embeddings.projection", "classifier"}),
}
IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def train(model, x, steps=2):
    """Some training steps; the loss is over every output tensor."""
    model.train()
    optimizer = torch.optim.SGD(eb.param_groups(model, weight_decay=1e-4), lr=0.5)
    for step in range(steps):
        eb.advance(model, step / steps)
        loss = tensor(model(x)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def tensor(output):
    if isinstance(output, torch.Tensor):
        return output
    return output[0] if isinstance(output, tuple) else output.logits


def check_life(model, source, x, folder):
    """Pack, packed checkpoint, export and verification of a trained model."""
    packed = eb.pack(model)
    with torch.no_grad():
        expected = tensor(model(x))
        assert_rounding(tensor(packed(x)), expected)
        eb.save_packed(packed, folder / "m.safetensors")
        assert_rounding(tensor(eb.load_packed(folder / "m.safetensors", source)(x)), expected)
    size = eb.export_onnx(model, folder / "m.onnx", x)
    check = eb.verify_onnx(model, folder / "m.onnx", x)
    assert check.ok
    assert check.agreement == 1
    assert len(check.layers) == len(list(packed_layers(packed)))
    return size


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(name, tmp_path):
    make, binary, kept = TRANSFORMERS[name]
    torch.manual_seed(0)
    model = make(pytest.importorskip("transformers"))
    source = copy.deepcopy(model)
    report = eb.binarize_(model, "bi_half")
    assert len(report.binary) == binary
    assert set(report.float) == kept
    before = eb.binary_weights(model)
    train(model, IMAGES)
    assert eb.analysis.flip_rate(before, eb.binary_weights(model)) > 0
    size = check_life(model, source, IMAGES, tmp_path)
    info, from_file = eb.summary(model, tuple(IMAGES.shape)), eb.export.summarize_onnx(tmp_path / "m.onnx")
    assert abs(size - info.onnx_bytes) <= 16 * 1024  # the contract's bound for small files
    assert from_file.macs_binary == info.macs_binary > 0


@pytest.mark.parametrize("activation", [None, "sign"])
def test_the_transformer_layer_of_torch(tmp_path, activation):
    torch.manual_seed(0)
    model, x = nn.TransformerEncoderLayer(16, 2, 32, 0.0, "gelu", batch_first=True), torch.randn(4, 5, 16)
    source = copy.deepcopy(model)
    report = eb.binarize_(model, "bi_half", skip=eb.nothing, activation=activation)
    assert report.binary == ["linear1", "linear2"]
    train(model, x)
    packed = eb.pack(model)
    # In eval mode torch's fused kernel would read the packed weights past sign activation and export.
    called = []
    for _, layer in packed_layers(packed):
        layer.register_forward_hook(lambda layer, *_: called.append(layer.spec.name))
    with torch.no_grad():
        packed(x)
    assert called == ["linear1", "linear2"]
    with torch.no_grad():  # the float32 sums of the fused kernel and of the layers, in another order
        torch.testing.assert_close(packed(x), model(x), rtol=1e-5, atol=1e-5)
    eb.save_packed(packed, tmp_path / "m.safetensors")
    with torch.no_grad():
        assert torch.equal(eb.load_packed(tmp_path / "m.safetensors", source)(x), packed(x))
    eb.export_onnx(model, tmp_path / "m.onnx", x)
    assert eb.verify_onnx(model, tmp_path / "m.onnx", x).ok
    assert len([n for n in onnx.load(tmp_path / "m.onnx").graph.node if n.domain == "equibit"]) == 2


@pytest.mark.parametrize("layer", [nn.Linear(4, 3), nn.ConvTranspose2d(4, 6, 3, groups=2)])
def test_code_that_reads_a_layer_s_weight_finds_it(layer):
    layer = copy.deepcopy(layer)
    eb.binarize_(layer, "bi_half", skip=eb.nothing)
    packed = eb.pack(layer)
    assert torch.equal(packed.weight, layer.weight)
    assert packed.weight.dtype == torch.float32


class ByName(nn.Module):
    """Names the arguments of its layers."""

    def __init__(self):
        super().__init__()
        self.linear, self.up = nn.Linear(5, 4), nn.ConvTranspose2d(2, 3, 3, stride=2, bias=False)

    def forward(self, x):
        y = self.linear(input=x)
        return self.up(output_size=(6, 4), input=y.unflatten(1, (2, 2, 1))).flatten(1)


@pytest.mark.parametrize("activation", [None, "sign"])
def test_layers_called_by_the_names_of_their_arguments(tmp_path, activation):
    torch.manual_seed(0)
    model, x = ByName(), torch.randn(4, 5)
    eb.binarize_(model, "sign", skip=eb.nothing, activation=activation)
    with torch.no_grad():
        assert_rounding(eb.pack(model)(x), model.eval()(x))
    eb.export_onnx(model, tmp_path / "m.onnx", x)
    assert eb.verify_onnx(model, tmp_path / "m.onnx", x).ok
    assert eb.summary(model, (1, 5)).macs_binary == 5 * 4 + 2 * (2 * 3 * 9)


class Language(nn.Module):
    """Embedding and head share their weight, one block is called twice, and a recurrent layer stands between."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.rnn = nn.LSTM(8, 8, batch_first=True)
        self.block = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        x, _ = self.rnn(self.embedding(tokens))
        x = x + self.block(x)
        return self.head(x + self.block(x)).transpose(1, 2)


def test_weight_tying_a_shared_layer_and_an_lstm(tmp_path):
    torch.manual_seed(0)
    model, tokens = Language(), torch.randint(0, 11, (4, 6))
    source = copy.deepcopy(model)
    report = eb.binarize_(model, "bi_half", skip=eb.nothing)
    assert report.binary == ["block.1", "block.3"]
    assert {r.name: r.reason for r in report.layers if not r.method} == {
        "embedding": "shares its weight with 'head'",
        "head": "shares its weight with 'embedding'",
        "rnn": "not a Linear or Conv layer",
    }
    train(model, tokens)
    assert model.head.weight is model.embedding.weight
    packed = eb.pack(model)
    assert packed.head.weight is packed.embedding.weight
    with torch.no_grad():
        assert_rounding(packed(tokens), model(tokens))
    eb.export_onnx(model, tmp_path / "m.onnx", tokens)
    check = eb.verify_onnx(model, tmp_path / "m.onnx", tokens)
    assert check.ok
    assert [layer.name for layer in check.layers] == ["block.1", "block.3", "block.1#2", "block.3#2"]
    assert eb.export.summarize_onnx(tmp_path / "m.onnx").macs_binary == 2 * 6 * 2 * 8 * 16
    eb.save_packed(packed, tmp_path / "m.safetensors")
    with torch.no_grad():
        assert torch.equal(eb.load_packed(tmp_path / "m.safetensors", source)(tokens), packed(tokens))


class Nested(nn.Module):
    """Returns its outputs by name, in parts, and some not at all."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        y = self.layer(x)
        return {"logits": self.head(y), "cache": None, "hidden": (x, [y])}


def test_outputs_by_name_and_in_parts(tmp_path):
    model, x = Nested(), torch.randn(4, 5)
    eb.binarize_(model, "sign", skip=eb.nothing)
    eb.export_onnx(model, tmp_path / "m.onnx", x)
    check = eb.verify_onnx(model, tmp_path / "m.onnx", x)
    assert check.ok
    assert [list(v.shape) for v in eb.runtime.InferenceSession(tmp_path / "m.onnx").get_outputs()] == [
        ["batch", 3],
        ["batch", 5],
        ["batch", 4],
    ]
    with torch.no_grad():
        model.head.bias[0] += 0.1
    assert not eb.verify_onnx(model, tmp_path / "m.onnx", x).ok


def test_outputs_that_are_no_tensors_are_an_error(tmp_path):
    class Annotated(nn.Linear):
        def forward(self, x):
            return {"logits": super().forward(x), "note": "text"}

    model, x = nn.Linear(5, 4), torch.randn(4, 5)
    eb.export_onnx(model, tmp_path / "m.onnx", x)
    with pytest.raises(InputError, match="returns a str"):
        eb.verify_onnx(Annotated(5, 4), tmp_path / "m.onnx", x)


@pytest.mark.gpu
@pytest.mark.parametrize("activation", [None, eb.activations.create("sign", -1)], ids=["1w32a", "1w1a"])
def test_packed_modules_compute_on_a_gpu(activation):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ConvTranspose2d(8, 6, 3, stride=2, groups=2),
        nn.Flatten(),
        nn.LazyLinear(10),
    )
    x = torch.randn(4, 3, 6, 6)
    model(x)
    overrides = {"4": eb.BiHalf(density=0.5)}
    eb.binarize_(model, "bi_half", skip=eb.nothing, overrides=overrides, activation=activation)
    expected = eb.pack(model)(x)
    moved = eb.pack(model).to("cuda")  # packed here, moved there
    there = eb.pack(model.to("cuda"))  # packed there
    for packed in (moved, there):
        assert all(tensor.is_cuda for tensor in packed.state_dict().values())
        for (_, a), (_, b) in zip(packed_layers(packed), packed_layers(moved), strict=True):
            assert torch.equal(a.bits, b.bits)
        with torch.no_grad():  # cuDNN may convolve in TF32, which keeps three decimal digits
            torch.testing.assert_close(packed(x.cuda()).cpu(), expected, rtol=1e-2, atol=1e-2)
