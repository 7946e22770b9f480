"""Recipes: strict loading, overrides, and what is wrong is named."""

import math

import pytest

from equibit import recipes, yaml_format
from equibit.errors import EquibitError, FileError, FormatError, InputError
from equibit.layers import binary_layers
from equibit.recipes import Recipe

SMALL = {
    "model": {"name": "digits_net", "num_classes": 10, "in_shape": [1, 8, 8]},
    "data": {"name": "digits"},
    "method": {"name": "bi_half", "ratio": 0.3},
    "train": {"epochs": 2},
}


def small(**sections: object) -> Recipe:
    """The small recipe with sections merged in (a dict into a dict, anything else in its place)."""
    values = {name: dict(section) for name, section in SMALL.items()}
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section} if isinstance(section, dict) else section
    return recipes.from_dict(values, "small")


def test_to_dict_is_complete():
    values = small().to_dict()
    assert set(values) == {"name", *recipes.SECTIONS}
    assert values["method"] == {
        "name": "bi_half",
        "ratio": 0.3,
        "density": 1.0,
        "scale": "he",
        "rescale": False,
    }
    assert values["optimizer"] == {
        "name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0, "decay_latents": False
    }  # fmt: skip
    assert values["activation"] is None
    assert values["model"]["in_shape"] == [1, 8, 8]
    assert recipes.from_dict(values, "ignored") == small()


def test_defaults_of_a_network_are_filled_in():
    recipe = small(model={"name": "resnet18", "in_shape": [3, 32, 32]})
    assert recipe.model.options == {"block": "relu", "stem": "auto", "norm": "affine"}


def test_short_forms():
    assert small(method="sign").method["name"] == "sign"
    assert small(method=None).method is None
    recipe = small(activation="bireal")
    assert recipe.activation == {"name": "bireal", "pad_value": 0.0}
    assert {layer.activation.key for layer in binary_layers(recipes.build(recipe))} == {"bireal"}


def test_skip_policy_is_applied():
    assert len(list(binary_layers(recipes.build(small(skip="nothing"))))) == 5
    assert len(list(binary_layers(recipes.build(small())))) == 3


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"modle": {}}, ["'modle'", "Did you mean 'model'"]),
        ({"optimizer": {"learning_rate": 1}}, ["'learning_rate'", "lr"]),
        ({"optimizer": {"momentun": 1}}, ["Did you mean 'momentum'"]),
        ({"optimizer": {"lr": 0}}, ["optimizer.lr", "0", "v>0"]),
        ({"optimizer": {"lr": "big"}}, ["optimizer.lr", "'big'", "float"]),
        ({"optimizer": {"lr": math.nan}}, ["optimizer.lr", "nan"]),
        ({"optimizer": {"lr": math.inf}}, ["inf", "finite"]),
        ({"optimizer": {"lr": True}}, ["optimizer.lr", "True"]),
        ({"optimizer": {"name": "sdg"}}, ["optimizer.name", "'sgd'", "sdg"]),
        ({"optimizer": {"name": ["sgd"]}}, ["optimizer.name"]),
        ({"optimizer": {"nesterov": True, "momentum": 0}}, ["nesterov"]),
        ({"optimizer": {"name": "adam", "momentum": 1}}, ["momentum"]),
        ({"train": {"epochs": 0}}, ["train.epochs", "0", "v>0"]),
        ({"train": {"epochs": 2.5}}, ["train.epochs", "2.5", "not an integer"]),
        ({"train": {"epochs": None}}, ["train.epochs", "required"]),
        ({"train": {"seed": -1}}, ["train.seed", "-1"]),
        ({"train": {"amp": 1}}, ["train.amp", "bool"]),
        ({"train": {"device": "gpu"}}, ["train.device", "gpu", "'cuda'"]),
        ({"train": {"label_smoothing": 2}}, ["label_smoothing", "v<=1"]),
        ({"data": {"name": "digit"}}, ["data.name", "Did you mean 'digits'"]),
        ({"data": {"augment": "flip"}}, ["data.augment", "crop_flip"]),
        ({"data": {"batch_size": 0}}, ["data.batch_size"]),
        ({"data": {"mean": 0.5}}, ["data.mean", "tuple"]),
        ({"data": {"mean": [0.5], "std": [0.0]}}, ["data.std", "v>0"]),
        ({"data": {"mean": [0.5], "std": [0.1, 0.1]}}, ["data.mean", "data.std"]),
        ({"model": {"name": "digitsnet"}}, ["Did you mean 'digits_net'"]),
        ({"model": {"num_classes": 0}}, ["model.num_classes"]),
        ({"model": {"in_shape": [8, 8]}}, ["model.in_shape", "3 elements"]),
        ({"model": {"blok": "relu"}}, ["'blok'"]),
        ({"method": {"name": "bihalf", "ratio": 0.5}}, ["Did you mean 'bi_half'"]),
        ({"method": {"name": "bi_half", "ratoi": 0.5}}, ["Did you mean 'ratio'"]),
        ({"method": {"name": "bi_half", "ratio": 1.5}}, ["ratio", "1.5"]),
        ({"activation": "birael"}, ["Did you mean 'bireal'"]),
        ({"activation": {"name": "sign", "pad_value": 0.5}}, ["pad_value"]),
        ({"activation": "sign", "method": None}, ["activation", "without a method"]),
        ({"skip": "first"}, ["'first'", "first_only"]),
        ({"skip": ["nothing"]}, ["skip"]),
        ({"schedule": {"name": "step"}}, ["milestones"]),
        ({"schedule": {"milestones": [3]}}, ["milestones", "cosine"]),
        ({"schedule": {"name": "step", "milestones": [3, 2]}}, ["increase"]),
        ({"schedule": {"name": "restarts"}}, ["milestones", "restarts"]),
        ({"schedule": {"name": "linear", "milestones": [1]}}, ["milestones", "linear"]),
        ({"schedule": {"name": "restarts", "milestones": [2]}}, ["milestones", "before the end (2 epochs)"]),
        (
            {"schedule": {"name": "restarts", "milestones": [1], "warmup_epochs": 1.5}},
            ["milestones", "after the warm-up (1.5 epochs)"],
        ),
        ({"schedule": {"warmup_epochs": 3}}, ["warmup_epochs", "train.epochs"]),
        ({"data": [1]}, ["data", "mapping"]),
        ({"name": 3}, ["name", "3"]),
    ],
)
def test_what_is_wrong_is_named(sections, words):
    values = {name: dict(section) for name, section in SMALL.items()}
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section} if isinstance(section, dict) else section
    with pytest.raises(InputError) as caught:
        recipes.from_dict(values, "small")
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("section", ["model", "data", "train"])
def test_a_required_section_is_missing(section):
    values = {name: value for name, value in SMALL.items() if name != section}
    with pytest.raises(InputError, match=section):
        recipes.from_dict(values, "small")


@pytest.mark.parametrize("key", ["name", "num_classes"])
def test_a_required_key_is_missing(key):
    model = {k: v for k, v in SMALL["model"].items() if k != key}
    with pytest.raises(InputError, match=key):
        recipes.from_dict({**SMALL, "model": model}, "small")


def test_override():
    recipe = recipes.load("mnist-lenet5-bi_half-1w32a")
    changed = recipes.override(
        recipe, {"train.epochs": "3", "optimizer.lr": "1e-2", "method.ratio": 0.4, "data.mean": "[0.1]"}
    )
    assert (changed.train.epochs, changed.optimizer.lr, changed.method["ratio"]) == (3, 0.01, 0.4)
    assert changed.data.mean == (0.1,)
    assert changed.name == recipe.name
    assert recipe == recipes.load("mnist-lenet5-bi_half-1w32a")
    assert recipes.override(recipe, {}) == recipe


def test_override_of_a_name_starts_from_its_defaults():
    recipe = recipes.load("digits-digits_net-bi_half-1w32a")
    sign = recipes.override(recipe, {"method.ste": "clip", "method.name": "sign"})
    assert (sign.method["name"], sign.method["ste"]) == ("sign", "clip")
    assert "ratio" not in sign.method
    same = recipes.override(recipes.override(recipe, {"method.ratio": 0.4}), {"method.name": "bi_half"})
    assert same.method["ratio"] == 0.4
    assert recipes.override(recipe, {"method": "null"}).method is None
    from_float = recipes.override(
        recipes.load("digits-digits_net-float"), {"method.ratio": 0.4, "method.name": "bi_half"}
    )
    assert from_float.method["ratio"] == 0.4
    assert recipes.override(recipe, {"method.name": "sign"}).method["name"] == "sign"
    assert (
        recipes.override(recipe, {"activation.name": "sign", "activation.pad_value": "-1"}).activation["pad_value"]
        == -1
    )


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("train.epoch", "3", ["Did you mean 'epochs'"]),
        ("trian.epochs", "3", ["Did you mean 'train'"]),
        ("method.ratio", "0.5", ["method", "needs a name"]),
        ("skip.name", "nothing", ["skip"]),
        ("train.epochs", "three", ["train.epochs", "'three'"]),
        ("train.epochs", "[", ["train.epochs"]),
        ("name", "x", ["--name"]),
        ("", "x", ["section"]),
    ],
)
def test_a_wrong_override_is_named(key, value, words):
    with pytest.raises(EquibitError) as caught:
        recipes.override(small(method=None), {key: value})
    for word in words:
        assert word in str(caught.value)


def test_an_unknown_recipe_names_the_nearest_and_the_command():
    with pytest.raises(InputError, match=r"Did you mean 'mnist-lenet5-float'.*equibit recipes"):
        recipes.load("mnist-lenet-float")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileError, match=r"absent\.yaml"):
        recipes.load(tmp_path / "absent.yaml")
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(InputError, match="mapping"):
        recipes.load(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("model: {name: [")
    with pytest.raises(FormatError, match=r"broken\.yaml"):
        recipes.load(tmp_path / "broken.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match=r"binary\.yaml"):
        recipes.load(tmp_path / "binary.yaml")


def test_the_error_of_a_file_names_it(tmp_path):
    (tmp_path / "mine.yaml").write_text(small().to_yaml().replace("epochs: 2", "epochs: 0"))
    with pytest.raises(InputError, match=r"mine\.yaml.*train\.epochs"):
        recipes.load(tmp_path / "mine.yaml")


def test_the_name_of_a_file_is_its_stem_unless_it_says_another(tmp_path):
    text = small().to_yaml()
    (tmp_path / "mine.yaml").write_text(text)
    assert recipes.load(tmp_path / "mine.yaml").name == "small"
    (tmp_path / "mine.yaml").write_text(text.replace("name: small\n", "", 1))
    assert recipes.load(tmp_path / "mine.yaml").name == "mine"


@pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), ("5E3", 5e3), (".5", 0.5), ("1", 1.0)])
def test_numbers_in_yaml_are_numbers(text, value, tmp_path):
    (tmp_path / "mine.yaml").write_text(small().to_yaml().replace("lr: 0.1", f"lr: {text}"))
    assert recipes.load(tmp_path / "mine.yaml").optimizer.lr == value


@pytest.mark.parametrize("word", ["off", "on", "no", "yes", "N", "~x", "1e", "2020-01-01"])
def test_other_words_are_strings(word):
    assert yaml_format.load(f"[{word}]") == [word]


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("False", False), ("null", None), ("-3", -3), ("+1.5e+2", 150.0), ("2.", 2.0), ("'1e-4'", "1e-4")],
)
def test_what_else_a_word_can_be(text, value):
    found = yaml_format.load(text)
    assert (found, type(found)) == (value, type(value))


def test_off_is_a_word_everywhere(tmp_path):
    recipe = recipes.from_dict({**SMALL, "method": {"name": "multi_prize", "equal_bits": "off"}}, "small")
    assert recipe.method["equal_bits"] == "off"
    (tmp_path / "mine.yaml").write_text(recipe.to_yaml())
    assert recipes.load(tmp_path / "mine.yaml") == recipe
    assert recipes.override(recipe, {"train.epochs": 3}).method == recipe.method
    changed = recipes.override(recipe, {"method.equal_bits": "signs"})
    assert recipes.override(changed, {"method.equal_bits": "off"}) == recipe


@pytest.mark.parametrize("text", ["!!python/object/apply:os.getcwd []", "a: b: c", "- *x"])
def test_yaml_refuses(text, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(FormatError, match=r"mine\.yaml"):
        recipes.load(tmp_path / "mine.yaml")
