"""The packed checkpoint: files that are right, or refused with the file and the problem in the message."""

import copy
import json
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
from rounding import assert_rounding
from safetensors.torch import save_file
from test_packed import GEOMETRIES, Network, Offset, X, binarised, network
from torch import nn

import equibit as eb
from equibit import bits, files, methods
from equibit.errors import EquibitError, FileError, FormatError, StateError
from equibit.packed import packed_layers


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "m.safetensors"
    assert eb.save_packed(eb.pack(network()), path) == path.stat().st_size
    return path


def read(path):
    with safetensors.safe_open(path, framework="pt") as handle:
        return handle.metadata(), {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118


@pytest.mark.parametrize("activation", [None, *(eb.activations.create("sign", pad) for pad in (-1, 0, 1))])
def test_a_checkpoint_loads_to_the_same_model(tmp_path, activation):
    packed = eb.pack(network(activation=activation))
    eb.save_packed(packed, tmp_path / "m")
    other = Network()
    before = copy.deepcopy(other.state_dict())
    loaded = eb.load_packed(tmp_path / "m", other)
    assert not loaded.training
    assert torch.equal(loaded(X), packed(X))
    assert [layer.spec for _, layer in packed_layers(loaded)] == [layer.spec for _, layer in packed_layers(packed)]
    assert loaded.mix is loaded.again
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    eb.save_packed(loaded, tmp_path / "again")
    (metadata, tensors), (wanted, originals) = read(tmp_path / "again"), read(tmp_path / "m")
    assert metadata == wanted
    assert tensors.keys() == originals.keys()
    assert all(torch.equal(tensors[name], originals[name]) for name in originals)


def test_a_checkpoint_of_one_layer_or_of_a_part(tmp_path):
    layer, x = binarised("conv2d circular same", "three levels", 1.0)
    eb.save_packed(eb.pack(layer), tmp_path / "root")
    assert_rounding(eb.load_packed(tmp_path / "root", GEOMETRIES["conv2d circular same"][0]())(x), layer(x))
    part = eb.pack(nn.Sequential(network(), nn.Identity()))[0]
    eb.save_packed(part, tmp_path / "part")
    assert_rounding(eb.load_packed(tmp_path / "part", Network())(X), part(X))


def test_the_file_is_what_the_contract_says(checkpoint):
    metadata, tensors = read(checkpoint)
    assert metadata.keys() == {"format", "version", "layers"}
    assert (metadata["format"], metadata["version"]) == ("equibit", "1")
    shared = {"method": "bi_half", "activation": None, "pad_value": 0.0}
    assert json.loads(metadata["layers"]) == [
        {"name": "mix", "kind": "Conv2d", "shape": [8, 8, 3, 3], "levels": "two"} | shared,
        {"name": "hidden", "kind": "Linear", "shape": [10, 32], "levels": "three"} | shared,
    ]
    data = checkpoint.read_bytes()
    (header,) = struct.unpack("<Q", data[:8])
    assert json.loads(data[8 : 8 + header]).keys() == {"__metadata__", *tensors}
    # Header and tensors are the whole file: no room for a pickle.
    assert len(data) == 8 + header + sum(t.numel() * t.element_size() for t in tensors.values())


def test_a_1w1a_file_records_activation_and_padding(tmp_path):
    eb.save_packed(eb.pack(network(activation=eb.activations.create("bireal", -1))), tmp_path / "m")
    layers = json.loads(read(tmp_path / "m")[0]["layers"])
    assert [(layer["activation"], layer["pad_value"]) for layer in layers] == [("bireal", -1.0)] * 2


def test_a_transposed_convolution_is_recorded_filters_first(tmp_path):
    layer, x = binarised("transposed 2d grouped", "three levels")
    eb.save_packed(eb.pack(layer), tmp_path / "m")
    (recorded,) = json.loads(read(tmp_path / "m")[0]["layers"])
    assert (recorded["kind"], recorded["shape"]) == ("ConvTranspose2d", [6, 2, 3, 2])
    source = GEOMETRIES["transposed 2d grouped"][0]()
    assert_rounding(eb.load_packed(tmp_path / "m", source)(x), layer(x))
    with pytest.raises(FormatError, match=r"\(6, 2, 3, 2\) in the checkpoint and \(3, 4, 3, 2\) in the model"):
        eb.load_packed(tmp_path / "m", nn.ConvTranspose2d(4, 3, (3, 2)))
    with pytest.raises(FormatError, match="the model has Conv2d there"):
        eb.load_packed(tmp_path / "m", nn.Conv2d(2, 6, (3, 2)))


def test_offsets_are_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(methods, "REGISTRY", {**methods.REGISTRY, Offset.key: Offset})
    layer, x = binarised("conv2d strided", "two levels with an offset")
    eb.save_packed(eb.pack(layer), tmp_path / "m")
    assert "offset" in read(tmp_path / "m")[1]
    assert_rounding(eb.load_packed(tmp_path / "m", GEOMETRIES["conv2d strided"][0]())(x), layer(x))


def test_save_refuses_what_load_would_refuse(tmp_path):
    path = tmp_path / "m"
    with pytest.raises(StateError, match="pack"):
        eb.save_packed(network(), path)
    own = nn.Linear(4, 4)
    eb.binarize_(own, Offset(), skip=eb.nothing)
    with pytest.raises(StateError, match=Offset.key):
        eb.save_packed(eb.pack(own), path)
    for name, value in (("head.weight", torch.nan), ("mix.scale", torch.nan), ("hidden.bias", torch.inf)):
        packed = eb.pack(network())
        packed.state_dict()[name].view(-1)[0] = value
        with pytest.raises(FormatError, match=name):
            eb.save_packed(packed, path)
    assert not list(tmp_path.iterdir())


def test_a_float_buffer_may_hold_infinity(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4))
    model.register_buffer("mask", torch.tensor([0.0, -torch.inf]))  # as attention does
    eb.binarize_(model, "sign", skip=eb.nothing)
    eb.save_packed(eb.pack(model), tmp_path / "m")
    assert eb.load_packed(tmp_path / "m", model).mask[1] == -torch.inf


# --- hostile files ---------------------------------------------------------------------------------------------------


def in_layer(**changes):
    return lambda file: file["layers"][0].update(changes)


def set_tensor(name, index, value):
    def change(file):
        file["tensors"][name][index] = value

    return change


def replace_tensor(name, change):
    return lambda file: file["tensors"].update({name: change(file["tensors"][name])})


def prune_more(file):
    """Clears the mask bit of a weight whose sign bit is set."""
    signs, mask = file["tensors"]["hidden.bits"], file["tensors"]["hidden.mask"]
    row, byte = next((r, b) for r in range(10) for b in range(4) if signs[r, b])
    mask[row, byte] &= ~signs[row, byte]


HOSTILE = {
    "no metadata": (lambda f: f["metadata"].clear(), "format=None"),
    "other format": (lambda f: f["metadata"].update(format="pt"), "format='pt'"),
    "version 2": (lambda f: f["metadata"].update(version="2"), "version='2'"),
    "no layers": (lambda f: f["metadata"].pop("layers"), "damaged: 'layers'"),
    "damaged JSON": (lambda f: f["metadata"].update(layers="[{"), "damaged"),
    "layers a number": (lambda f: f["metadata"].update(layers="3"), "damaged"),
    "layers of strings": (lambda f: f["metadata"].update(layers='["mix"]'), "damaged"),
    "layers empty": (lambda f: f["layers"].clear(), "damaged"),
    "layers too deep": (lambda f: f["metadata"].update(layers="[" * 100_000), "damaged"),
    "layer twice": (lambda f: f["layers"].append(f["layers"][0]), "damaged.*'mix', 'hidden', 'mix'"),
    "layer left out": (lambda f: f["layers"].pop(), "missing .*'hidden.weight'.*not in the model .*'hidden.bits'"),
    "unknown kind": (in_layer(kind="Conv9d"), "'Conv9d'"),
    "kind not hashable": (in_layer(kind=["Conv2d"]), "damaged"),
    "other kind": (in_layer(kind="Linear"), "a Linear named 'mix'; the model has Conv2d"),
    "unknown levels": (in_layer(levels="four"), "'four'"),
    "levels of another tensor": (in_layer(levels="three"), "missing .*'mix.mask'"),
    "unknown method": (in_layer(method="nonsense"), "'nonsense'"),
    "shape transposed": (in_layer(shape=[8, 3, 3, 8]), "shape"),
    "shape negative": (in_layer(shape=[8, -8, 3, 3]), "shape"),
    "shape of floats": (in_layer(shape=[8.0, 8, 3, 3]), "shape"),
    "shape a number": (in_layer(shape=8), "damaged"),
    "shape of strings": (in_layer(shape="8833"), "shape"),
    "name not in the model": (in_layer(name="mux"), "'mux'; the model has nothing"),
    "name a number": (in_layer(name=3), "damaged"),
    "name a list": (in_layer(name=["mix"]), "damaged"),
    "extra key": (in_layer(code="print()"), "damaged.*'code'"),
    "key left out": (lambda f: f["layers"][0].pop("method"), "damaged.*'method'"),
    "unknown activation": (in_layer(activation="relu"), "'relu'"),
    "activation a list": (in_layer(activation=["sign"]), "damaged"),
    "bad pad_value": (in_layer(activation="sign", pad_value=0.5), "0.5"),
    "pad_value a string": (in_layer(activation="sign", pad_value="1"), "damaged"),
    "tensor missing": (lambda f: f["tensors"].pop("mix.bits"), r"missing \['mix.bits'\]"),
    "float tensor missing": (lambda f: f["tensors"].pop("norm.running_var"), r"missing \['norm.running_var'\]"),
    "tensor extra": (lambda f: f["tensors"].update(extra=torch.zeros(1)), r"not in the model \['extra'\]"),
    "bits int8": (replace_tensor("mix.bits", lambda t: t.to(torch.int8)), "'mix.bits' is torch.int8"),
    "scale float64": (replace_tensor("mix.scale", torch.Tensor.double), "'mix.scale' is torch.float64"),
    "a filter short": (replace_tensor("mix.bits", lambda t: t[1:].clone()), r"'mix.bits' .*\(7, 16\)"),
    "a word short": (replace_tensor("mix.bits", lambda t: t[:, 8:].clone()), r"'mix.bits' .*\(8, 8\)"),
    "a flat tensor": (replace_tensor("mix.bits", torch.Tensor.flatten), r"'mix.bits' .*\(128,\)"),
    "padding bit": (set_tensor("hidden.bits", (2, 4), 1), "layer 'hidden'.*row 2 .*padding"),
    "padding bit of the mask": (set_tensor("hidden.mask", (3, 7), 128), "layer 'hidden'.*row 3 .*padding"),
    "sign of a pruned weight": (prune_more, "layer 'hidden'.*sign bit"),
    "two values of a shared layer": (set_tensor("mix.bits", (0, 0), 3), "'mix.bits' shares"),
    "scale NaN": (set_tensor("mix.scale", 0, torch.nan), "'mix.scale' holds"),
    "scale infinite": (set_tensor("hidden.scale", 0, -torch.inf), "'hidden.scale' holds"),
    "float weight NaN": (set_tensor("head.weight", 0, torch.nan), "'head.weight' holds NaN"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_by_name(checkpoint, tmp_path, case):
    change, message = HOSTILE[case]
    metadata, tensors = read(checkpoint)
    file = {"metadata": metadata, "layers": json.loads(metadata["layers"]), "tensors": tensors}
    kept = metadata["layers"]
    change(file)
    if metadata.get("layers") == kept:
        metadata["layers"] = json.dumps(file["layers"])
    save_file(file["tensors"], tmp_path / "hostile.st", metadata or None)
    with pytest.raises(FormatError, match=f"hostile.st.*{message}"):
        eb.load_packed(tmp_path / "hostile.st", Network())


def test_a_file_that_is_no_safetensors_is_refused(checkpoint, tmp_path):
    data, path = checkpoint.read_bytes(), tmp_path / "hostile.st"
    damaged = [data[:n] for n in (0, 4, 8, 100, len(data) // 2, len(data) - 1)]
    damaged += [b"hello" * 100, data + b"\0", struct.pack("<Q", 2**63) + data[8:], b"\xff" * 64]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"hostile\.st is not a safetensors file"):
            eb.load_packed(path, Network())
    torch.save(Network().state_dict(), path)
    with pytest.raises(FormatError, match="is not a safetensors file"):
        eb.load_packed(path, Network())


def test_no_damaged_byte_of_the_header_crashes_the_reader(checkpoint, tmp_path):
    data, path, chance = checkpoint.read_bytes(), tmp_path / "hostile.st", random.Random(0)
    (header,) = struct.unpack("<Q", data[:8])
    model, refused, same = Network(), 0, 0
    expected = eb.load_packed(checkpoint, model)(X)
    for _ in range(300):
        damaged = bytearray(data)
        damaged[chance.randrange(8 + header)] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            same += torch.equal(eb.load_packed(path, model)(X), expected)
        except EquibitError as error:
            refused += "hostile.st" in str(error)
    assert refused > 250
    assert refused + same == 300  # no third outcome


def test_paths_that_cannot_be_read_are_file_errors(tmp_path, checkpoint, monkeypatch):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(FileError, match="no packed checkpoint"):
            eb.load_packed(path, Network())
    monkeypatch.setattr(safetensors, "safe_open", raiser(PermissionError(13, "Permission denied")))
    with pytest.raises(FileError, match=r"m\.safetensors: Permission denied"):
        eb.load_packed(checkpoint, Network())


# --- writing ---------------------------------------------------------------------------------------------------------


def raiser(error):
    def fail(*_args, **_kwargs):
        raise error

    return fail


def test_a_folder_that_takes_no_file_is_a_file_error(tmp_path):
    packed, file = eb.pack(network()), tmp_path / "file"
    file.write_bytes(b"x")
    for path in (tmp_path / "none" / "m", file / "m", tmp_path, tmp_path / ("m" * 300)):
        with pytest.raises(FileError, match="cannot write"):
            eb.save_packed(packed, path)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("existing", [b"old", None])
@pytest.mark.parametrize("step", [(Path, "write_bytes"), (files, "_sync"), (Path, "replace")], ids=lambda s: s[1])
def test_a_failed_write_keeps_what_was_there(tmp_path, monkeypatch, step, existing):
    path, packed = tmp_path / "m", eb.pack(network())
    if existing:
        path.write_bytes(existing)
    for error, seen in ((OSError(30, "Read-only file system"), FileError), (KeyboardInterrupt(), KeyboardInterrupt)):
        with monkeypatch.context() as patch:
            patch.setattr(*step, raiser(error))
            with pytest.raises(seen):
                eb.save_packed(packed, path)
        assert [p.name for p in tmp_path.iterdir()] == (["m"] if existing else [])
    if existing:
        assert path.read_bytes() == existing


def test_bits_of_the_checkpoint_are_the_package_s_bits(checkpoint):
    signs = read(checkpoint)[1]["mix.bits"].numpy()
    rows = bits.filters_to_rows(eb.binary_weights(network())["mix.weight"].numpy())
    assert np.array_equal(signs, bits.pack_bits(rows))
