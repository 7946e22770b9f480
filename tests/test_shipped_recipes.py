"""The recipes that ship with Equibit: which there are, that each builds what it says, and the numbers of the papers."""

import functools
import json
from pathlib import Path

import pytest
import torch

import equibit
from equibit import models, recipes
from equibit.layers import binary_layers
from equibit.recipes import Recipe
from equibit.training import optimizers, schedules
from equibit.training.schedules import Position

BOTH = ("", "-short")
ALONE = ("",)
SHORT = ("-short",)


def methods(bits: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{name}-{bits}" for name in names)


def binary_inputs(block: str, *more: str) -> tuple[str, ...]:
    """Float twin and methods of an experiment with binary activations."""
    return (f"float.{block}", *methods("1w1a", "sign", "bi_half", *more))


WEIGHTS = ("float", *methods("1w32a", "sign", "bi_half"))
WITH_IR_NET = (*WEIGHTS, "ir_net-1w32a")
WIDE = ("float", "sign.mcdonnell-1w32a")
OTHERS = methods("1w32a", "adabin", "ir_net", "multi_prize", "recu", "reste", "siman")
COMMON = methods("1w32a", "siman.common", "group_transform.common", "multi_prize.common")  # in the others' recipe
CONV = ("conv2", "conv4", "conv6", "conv8")
FIGURE_7 = ("inception_v3", "shufflenet", "vgg16")  # of Equal Bits, with the two ResNets
RESNETS = ("resnet18", "resnet34")
EXPERIMENTS = [  # data and model, the float twin and the methods that share its recipe, lengths
    ("digits-digits_net", (*WEIGHTS, *OTHERS, "group_transform-1w32a"), ALONE),
    ("mnist-lenet5", (*WEIGHTS, *OTHERS, "group_transform.common-1w32a"), ALONE),
    (
        "cifar10-conv2",
        ("float.common", "ir_net-1w32a", *COMMON, *methods("1w32a", "sign.common", "bi_half.common")),
        SHORT,
    ),
    ("cifar10-resnet20", ("float", *COMMON), SHORT),
    *((f"cifar10-{name}", WEIGHTS, BOTH) for name in CONV),
    ("cifar10-nin", ("float", "sign.xnor-1w1a", "sign.bwn-1w32a"), BOTH),
    ("cifar10-resnet18", WEIGHTS, BOTH),
    ("cifar10-resnet18", binary_inputs("equal_bits"), BOTH),
    ("cifar10-resnet20", WEIGHTS, BOTH),
    ("cifar10-resnet20", binary_inputs("bireal_hardtanh"), BOTH),
    ("cifar10-resnet34", WEIGHTS, BOTH),
    ("cifar10-vgg_small", WITH_IR_NET, BOTH),
    ("cifar10-wrn_28_10", WIDE, BOTH),
    ("cifar100-conv2", WEIGHTS, BOTH),
    ("cifar100-vgg16", WEIGHTS, BOTH),
    *((f"cifar100-{name}", WITH_IR_NET, BOTH) for name in ("inception_v3", "mobilenet_v1", "shufflenet", *RESNETS)),
    *((f"cifar100-{name}", binary_inputs("hardtanh", "ir_net"), BOTH) for name in FIGURE_7),
    *((f"cifar100-{name}", binary_inputs("equal_bits", "ir_net"), BOTH) for name in RESNETS),
    ("cifar100-wrn_20_10", WIDE, BOTH),
    ("cifar100-wrn_28_10", ("float", "group_transform-1w32a"), BOTH),
    *((f"imagefolder-{name}", binary_inputs("equal_bits"), BOTH) for name in RESNETS),
]
DENSITIES = (80, 60, 50, 40, 20, 10)  # per cent kept
CIFAR = ("resnet18", "resnet20", "vgg_small")
ROWS = {  # by paper: networks and methods of recipes with numbers of their own
    "Equal Bits, IR-Net where the network needs a batch norm for it": (
        *(f"cifar10-{name}-ir_net-1w32a" for name in CONV),
        "cifar100-conv2-ir_net-1w32a",
        "cifar100-vgg16-ir_net-1w32a",
    ),
    "IR-Net": (
        "cifar10-resnet18-ir_net-1w1a",
        "cifar10-resnet20-ir_net-1w1a",
        "cifar10-resnet20-ir_net-1w32a",
        "cifar10-vgg_small-float.hardtanh",
        "cifar10-vgg_small-ir_net-1w1a",
        *(f"imagefolder-{name}-ir_net-{bits}" for name in RESNETS for bits in ("1w1a", "1w32a")),
    ),
    "XNOR-Net": ("imagefolder-resnet18-sign.bwn-1w32a", "imagefolder-resnet18-sign.xnor-1w1a"),
    "Bi-Real Net": tuple(f"imagefolder-{name}-sign.bireal-1w1a" for name in RESNETS),
    "MPT": (
        *(f"cifar10-{name}-float.hardtanh" for name in CONV),
        *(f"cifar10-{name}-multi_prize.d{d}-{bits}" for name in CONV for d in DENSITIES for bits in ("1w1a", "1w32a")),
        *(f"cifar10-{name}-multi_prize.d50_{kind}-1w32a" for name in CONV for kind in ("signs", "exact")),
        *(f"cifar10-resnet18-multi_prize.d20{norm}-1w32a" for norm in ("", "_bn")),
        "cifar10-vgg_small-multi_prize.d5-1w32a",
        *(f"cifar10-vgg_small-multi_prize.d25{norm}-1w1a" for norm in ("", "_bn")),
        *(f"cifar100-resnet18-multi_prize.d{d}-1w32a" for d in DENSITIES),
    ),
    "SiMaN": (
        *(f"cifar10-{name}-siman-{bits}" for name in CIFAR for bits in ("1w1a", "1w32a")),
        *(f"imagefolder-{name}-siman-1w1a" for name in RESNETS),
    ),
    "GWT": (
        "mnist-lenet5-group_transform-1w32a",
        *(f"cifar10-{name}-group_transform-1w32a" for name in ("resnet18", "vgg_small", "wrn_28_10")),
    ),
    **{
        paper: (
            *(f"cifar10-{name}-{method}-1w1a" for name in CIFAR),
            *(f"imagefolder-{name}-{method}-1w1a" for name in RESNETS),
        )
        for paper, method in (("ReCU", "recu"), ("AdaBin", "adabin"), ("ReSTE", "reste"))
    },
    "ReSTE with two skips, and with binary weights alone": (
        "cifar10-resnet20-reste.bireal-1w1a",
        "cifar10-resnet20-reste-1w32a",
        *(f"imagefolder-{name}-reste-1w32a" for name in RESNETS),
    ),
    "He et al.": tuple(f"imagefolder-{name}-float" for name in RESNETS),
}
TWINS = [
    (f"{experiment}-{float_twin}{length}", f"{experiment}-{method}{length}")
    for experiment, (float_twin, *binary), lengths in EXPERIMENTS
    for length in lengths
    for method in binary
]
SHIPPED = sorted(
    {name for pair in TWINS for name in pair}
    | {name + length for names in ROWS.values() for name in names for length in BOTH}
)
CONVOLUTIONS = {  # and linear layers: all that have a weight matrix, and the shortcuts among them
    "digits_net": (5, 0),
    "lenet5": (4, 0),
    "conv2": (5, 0),
    "conv4": (7, 0),
    "conv6": (9, 0),
    "conv8": (11, 0),
    "inception_v3": (95, 0),
    "mobilenet_v1": (28, 0),
    "nin": (9, 0),
    "resnet18": (21, 3),
    "resnet20": (20, 0),
    "resnet34": (37, 3),
    "shufflenet": (50, 0),
    "vgg16": (16, 0),
    "vgg_small": (7, 0),
    "wrn_20_10": (20, 0),
    "wrn_28_10": (29, 3),
}
CLASSES = {"cifar100": 100, "imagefolder": 1000}


load = functools.cache(recipes.load)


def binary_count(recipe: Recipe) -> int:
    """How many layers of a recipe's network are binary."""
    layers, shortcuts = CONVOLUTIONS[recipe.model.name]
    kept = {"nothing": 0, "first_only": 1, "first_and_last": 2, "first_last_and_shortcuts": 2 + shortcuts}
    return layers - kept[recipe.skip] if recipe.method else 0


@functools.cache
def output_shape(section: str) -> tuple[int, ...]:
    """What a network gives for two images, by shapes alone; recipes share networks."""
    options = json.loads(section)
    with torch.device("meta"):
        return tuple(models.create(**options).eval()(torch.empty(2, *options["in_shape"])).shape)


@functools.cache
def build_sections(sections: str) -> torch.nn.Module:
    """The network of a recipe as shapes; those that differ in numbers of the training alone share it."""
    with torch.device("meta"):
        return recipes.build(recipes.from_dict(json.loads(sections), "shared"))


def network(recipe: Recipe) -> torch.nn.Module:
    values = recipe.to_dict()
    kept = {key: values[key] for key in ("model", "method", "activation", "skip")}
    if recipe.method is not None:
        kept["method"] = {key: value for key, value in values["method"].items() if key != "density"}
    return build_sections(json.dumps({**kept, "data": {"name": "digits"}, "train": {"epochs": 1}}, sort_keys=True))


def test_the_shipped_recipes_are_the_expected_ones():
    assert len(TWINS) == 155
    assert sum(len(names) for names in ROWS.values()) == 123
    assert len(SHIPPED) == 459
    assert recipes.list() == SHIPPED
    assert {name.split("-")[1] for name in SHIPPED} == set(models.list()) == set(CONVOLUTIONS)
    assert {f"digits-digits_net-{key}-1w32a" for key in equibit.methods.list()} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipe(name, tmp_path):
    recipe = load(name)
    assert recipe.name == name
    dataset, model, method = name.removesuffix("-short").split("-")[:3]
    assert (recipe.data.name, recipe.model.name) == (dataset, model)
    assert (recipe.method["name"] if recipe.method else "float") == method.split(".")[0]
    assert ("1w1a" in name) == (recipe.activation is not None)
    assert recipe.model.num_classes == CLASSES.get(dataset, 10)
    (tmp_path / "other.yaml").write_text(recipe.to_yaml())
    assert recipes.load(tmp_path / "other.yaml") == recipe
    section = {key: value for key, value in vars(recipe.model).items() if value is not None}
    assert output_shape(json.dumps(section)) == (2, recipe.model.num_classes)
    built = network(recipe)
    assert len(list(binary_layers(built))) == binary_count(recipe)
    assert isinstance(optimizers.create(recipe.optimizer, built), torch.optim.Optimizer)
    epochs = recipe.train.epochs
    factors = [schedules.lr_factor(recipe.schedule, epochs, Position(e, 0, 2)) for e in range(epochs)]
    assert 0 < max(factors) <= 1
    assert 0 <= factors[-1] < max(factors)  # all of them lower the rate in the end


def test_every_file_says_what_it_is():
    files = sorted((Path(recipes.__file__).parent / "files").glob("*.yaml"))
    assert len(files) == len(SHIPPED)
    for file in files:
        lines = file.read_text().splitlines()
        assert lines[0].startswith("# "), file.name
        assert max(map(len, lines)) <= 120, file.name


def test_the_overview_says_what_the_recipes_say():
    rows = recipes.overview()
    assert [row["name"] for row in rows] == SHIPPED
    for row in rows[:: len(rows) // 20]:
        recipe = load(row["name"])
        assert row == {
            "name": recipe.name,
            "data": recipe.data.name,
            "model": recipe.model.name,
            "method": recipe.method["name"] if recipe.method else "float",
            "epochs": recipe.train.epochs,
        }


@pytest.mark.parametrize(("float_twin", "binary"), TWINS)
def test_an_experiment_differs_in_the_method_only(float_twin, binary):
    ordinary, method = load(float_twin).to_dict(), load(binary).to_dict()
    if "-conv" in float_twin and "short" not in float_twin:  # no batch norm: it needs a lower learning rate
        assert (ordinary["optimizer"].pop("lr"), method["optimizer"].pop("lr")) == (0.01, 0.1)
    differs = {key for key in method if method[key] != ordinary[key]}
    assert {"name", "method"} <= differs <= {"name", "method", "activation", "skip"}


PAPERS = {  # epochs, batch, optimiser, learning rate, weight decay, schedule, warm-up; from the authors' code
    "cifar10-conv4-bi_half-1w32a": (100, 128, "sgd", 0.1, 1e-4, "cosine", 1),  # the warm-up is ours
    "cifar100-vgg16-bi_half-1w32a": (350, 128, "sgd", 0.1, 5e-4, "step", 0),
    "cifar100-resnet18-ir_net-1w1a": (350, 128, "sgd", 0.1, 5e-4, "step", 0),
    "imagefolder-resnet18-bi_half-1w1a": (100, 256, "sgd", 0.1, 1e-4, "step", 0),
    "cifar10-resnet20-ir_net-1w1a": (400, 128, "sgd", 0.1, 1e-4, "cosine", 0),
    "cifar10-vgg_small-ir_net-1w1a": (300, 128, "sgd", 0.007, 1e-4, "cosine", 0),
    "imagefolder-resnet18-ir_net-1w1a": (100, 2048, "sgd", 0.8, 1e-5, "step", 4),
    "imagefolder-resnet34-ir_net-1w32a": (100, 2048, "sgd", 0.8, 1e-4, "step", 4),
    "cifar10-nin-sign.xnor-1w1a": (320, 128, "adam", 0.01, 1e-5, "step", 0),
    "cifar10-conv6-multi_prize.d20-1w32a": (100, 128, "sgd", 0.1, 1e-4, "cosine", 0),
    "cifar10-conv6-multi_prize.d20-1w1a": (100, 128, "adam", 0.1, 0, "cosine", 0),
    "cifar10-resnet18-multi_prize.d20-1w32a": (100, 256, "sgd", 0.1, 5e-4, "cosine", 0),
    "cifar10-vgg_small-multi_prize.d25_bn-1w1a": (100, 128, "adam", 2e-4, 0, "cosine", 0),
    "cifar10-resnet18-siman-1w1a": (400, 256, "sgd", 0.1, 5e-4, "cosine", 5),
    "imagefolder-resnet34-siman-1w1a": (150, 512, "sgd", 0.1, 1e-4, "cosine", 0),
    "cifar10-wrn_28_10-group_transform-1w32a": (200, 128, "sgd", 0.1, 5e-4, "cosine", 0),
    "cifar100-wrn_20_10-sign.mcdonnell-1w32a": (256, 128, "sgd", 0.1, 5e-4, "restarts", 0),
    "cifar10-resnet20-recu-1w1a": (600, 256, "sgd", 0.1, 5e-4, "cosine", 5),
    "imagefolder-resnet18-recu-1w1a": (200, 512, "sgd", 0.1, 1e-4, "cosine", 5),
    "cifar10-resnet20-adabin-1w1a": (400, 128, "sgd", 0.1, 1e-4, "cosine", 0),
    "imagefolder-resnet34-adabin-1w1a": (120, 256, "sgd", 0.1, 1e-5, "cosine", 0),
    "cifar10-resnet18-reste-1w1a": (2000, 96, "sgd", 0.1, 1e-4, "cosine", 0),
    "cifar10-vgg_small-reste-1w1a": (1000, 256, "sgd", 0.1, 1e-4, "cosine", 0),
    "imagefolder-resnet34-reste-1w32a": (250, 750, "sgd", 0.1, 1e-4, "cosine", 0),
    "imagefolder-resnet18-sign.bireal-1w1a": (256, 512, "adam", 1e-3, 0, "linear", 0),
}


@pytest.mark.parametrize("name", PAPERS)
def test_the_numbers_of_the_papers(name):
    recipe = load(name)
    optimizer, schedule = recipe.optimizer, recipe.schedule
    rate, decay = optimizer.lr, optimizer.weight_decay
    found = (recipe.train.epochs, recipe.data.batch_size, optimizer.name, rate, decay, schedule.name)
    assert (*found, schedule.warmup_epochs) == PAPERS[name]
    assert optimizer.momentum == 0.9


def test_which_layers_stay_float_follows_the_papers():
    skips = {
        "cifar10-resnet18-siman-1w1a": "first_and_last",  # its shortcuts are binary
        "imagefolder-resnet18-siman-1w1a": "first_last_and_shortcuts",
        "cifar10-resnet18-ir_net-1w1a": "first_last_and_shortcuts",
        "cifar100-resnet18-bi_half-1w32a": "first_last_and_shortcuts",
        "cifar100-inception_v3-bi_half-1w32a": "first_and_last",
        "cifar10-conv2-multi_prize.d50-1w32a": "nothing",
        "cifar10-conv2-multi_prize.d50-1w1a": "first_only",
        "cifar10-wrn_28_10-sign.mcdonnell-1w32a": "nothing",
    }
    assert {name: load(name).skip for name in skips} == skips
    assert load("cifar10-resnet20-ir_net-1w1a").method["t_min"] == 1e-3
    assert load("cifar10-resnet20-ir_net-1w1a").activation["t_min"] == 1e-3
    for name in SHIPPED:
        kept = name.split("multi_prize.d")[-1].split("-")[0].split("_")[0]
        if kept.isdigit():
            assert load(name).method["density"] == int(kept) / 100
