"""From a float network to one with binary weights, in place, and what its training needs."""

import copy
import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from equibit import activations, methods
from equibit.activations import SignActivation
from equibit.errors import InputError, StateError
from equibit.layers import (
    ACTIVATION,
    LAYER_TYPES,
    BinaryWeight,
    binary_layers,
    binary_weight_of,
    filters_first,
    layer_kind,
    swapped_groups,
    weight_name,
)
from equibit.methods import Method
from equibit.tables import render

NamedModules = Sequence[tuple[str, nn.Module]]
Policy = Callable[[NamedModules], Sequence[str]]
Overrides = Mapping[str, Method | str | None]

_SHORTCUT = re.compile(r"(^|\.)(downsample|shortcut)(\.|$)")


def nothing(layers: NamedModules) -> list[str]:
    """Policy: no layer stays float."""
    return []


def first_and_last(layers: NamedModules) -> list[str]:
    """Policy: the first and the last eligible layer stay float (the default)."""
    return [layers[0][0], layers[-1][0]] if layers else []


def first_only(layers: NamedModules) -> list[str]:
    """Policy: the first eligible layer stays float; with sign activations it then sees real images."""
    return [layers[0][0]] if layers else []


def first_last_and_shortcuts(layers: NamedModules) -> list[str]:
    """Policy: first, last, and every layer inside a module named `downsample` or `shortcut` stay float."""
    return first_and_last(layers) + [name for name, _ in layers if _SHORTCUT.search(name)]


_POLICIES = (nothing, first_only, first_and_last, first_last_and_shortcuts)
POLICIES: Mapping[str, Policy] = {policy.__name__: policy for policy in _POLICIES}


@dataclass(frozen=True)
class LayerReport:
    """What `binarize_` did with one module: `method` is its key, or None with the `reason` it stays float."""

    name: str
    kind: str
    shape: tuple[int, ...]
    method: str | None
    activation: str | None
    reason: str

    @property
    def weights(self) -> int:
        """Number of weights."""
        return torch.Size(self.shape).numel()


@dataclass(frozen=True)
class Report:
    """The outcome of `binarize_`, one entry for every module with a weight matrix, in module order."""

    layers: tuple[LayerReport, ...]

    @property
    def binary(self) -> list[str]:
        """Names of the binarised layers."""
        return [layer.name for layer in self.layers if layer.method]

    @property
    def float(self) -> list[str]:
        """Names of the layers that stay float."""
        return [layer.name for layer in self.layers if not layer.method]

    def table(self) -> str:
        """A text table."""
        rows = [
            (
                r.name or "(model)",
                r.kind,
                "x".join(map(str, r.shape)),
                r.method or "float",
                r.activation or "-",
                r.reason,
            )
            for r in self.layers
        ]
        return render(("layer", "kind", "weight", "method", "activation", "why float"), rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def __str__(self) -> str:
        return self.table()


def binarize_(
    model: nn.Module,
    method: Method | str,
    *,
    activation: SignActivation | str | None = None,
    skip: Policy = first_and_last,
    overrides: Overrides | None = None,
) -> Report:
    """Gives the layers of `model` binary weights, in place; training then runs as before.

    Every Linear, Conv1d/2d/3d and ConvTranspose1d/2d/3d that `skip` does not keep float gets a copy of `method` as the
    parametrisation of its weight: the optimiser trains the latent weight, the layer computes with the binary one. The
    latents start as the weights of the given network, and a float checkpoint still loads into them.

    Args:
        model: Any module; also a single layer.
        method: A method object (a template, copied for every layer) or its key.
        activation: Sign activation before every binary layer (1W1A), as an object or key; None for 1W32A.
        skip: Policy from the (name, module) list of eligible layers to the names that stay float.
        overrides: Exact layer name, or `re:` and a pattern that matches the full name -> method, key, or None for
            float. Beats `skip`; the last match wins.

    Returns:
        A report that lists every layer, and why a float one is float.

    Raises:
        InputError: The model is binarised already; an override matches no eligible layer; nothing would be binary.
            The model is then unchanged.
    """
    if next(binary_layers(model), None) is not None:
        raise InputError("the model is binarised already; build a fresh one to binarise it in another way.")
    reasons = _ineligible(model)
    eligible = [(n, m) for n, m in model.named_modules() if layer_kind(m) and n not in reasons]
    if not eligible:
        raise InputError(
            "the model has no layer to binarise: no Linear, Conv1d/2d/3d or ConvTranspose1d/2d/3d of its own. "
            f"Left out: {', '.join(f'{n!r} ({r})' for n, r in reasons.items()) or 'nothing'}."
        )
    chosen = _choose(eligible, methods.resolve(method), skip, overrides or {})
    if not any(chosen.values()):
        raise InputError(
            f"no layer would become binary: {len(eligible)} eligible layer(s), all kept float by the policy "
            f"{getattr(skip, '__name__', skip)!r} or by overrides. Pass skip=equibit.nothing to binarise them all."
        )
    template = None if activation is None else activations.resolve(activation)
    prepared = {name: _prepare(name, module, chosen[name]) for name, module in eligible if chosen[name]}
    for name, module in eligible:
        if name in prepared:
            _attach(name, module, *prepared[name], template)
    return _report(model, reasons, template)


def _ineligible(model: nn.Module) -> dict[str, str]:
    """Modules with a weight matrix that cannot be binarised -> the reason."""
    reasons: dict[str, str] = {}
    owners: dict[int, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            reasons[f"{name}.out_proj" if name else "out_proj"] = (
                "attention reads this weight without calling the layer"
            )
        weight = module._parameters.get("weight")
        if parametrize.is_parametrized(module, "weight"):
            reasons[name] = "its weight is parametrised already"
        elif isinstance(weight, nn.parameter.UninitializedParameter):
            reasons[name] = "its shape is unknown before the first forward"
        elif weight is not None and id(weight) in owners:
            owner = owners[id(weight)]
            reasons[name], reasons[owner] = f"shares its weight with {owner!r}", f"shares its weight with {name!r}"
        elif layer_kind(module) is None and any(p.dim() > 1 for p in module.parameters(recurse=False)):
            subclass = isinstance(module, LAYER_TYPES)
            reasons[name] = "a subclass with a forward of its own" if subclass else "not a Linear or Conv layer"
        if weight is not None:
            owners.setdefault(id(weight), name)
    return reasons


def _choose(eligible: NamedModules, default: Method, skip: Policy, overrides: Overrides) -> dict[str, Method | None]:
    """Layer name -> method, None for float: the policy first, then the overrides in order."""
    known = [name for name, _ in eligible]
    kept = set(skip(eligible))
    if not kept <= set(known):
        raise InputError(
            f"the skip policy returned {sorted(kept - set(known))}, not among the eligible layers {known}."
        )
    chosen = {name: None if name in kept else default for name in known}
    for pattern, method in overrides.items():
        matches = [n for n in known if (re.fullmatch(pattern[3:], n) if pattern.startswith("re:") else n == pattern)]
        if not matches:
            near = difflib.get_close_matches(pattern, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise InputError(f"the override {pattern!r} matches no eligible layer.{hint} Eligible: {', '.join(known)}.")
        chosen |= dict.fromkeys(matches, None if method is None else methods.resolve(method))
    return chosen


def _prepare(name: str, module: nn.Module, template: Method | None) -> tuple[Method, Tensor | None]:
    """The layer's own copy of the method, attached, and its latent unless that is the weight; changes nothing yet."""
    method = copy.deepcopy(template)
    assert method is not None
    method.layer = name
    weight = module.weight
    assert isinstance(weight, Tensor)
    filters = filters_first(weight.detach(), swapped_groups(module))
    method.check(filters)
    initial = method.initial(filters)
    method.attach(initial)
    latent = None if initial is filters else filters_first(initial, swapped_groups(module))
    return method.to(weight.device), latent


def _attach(
    name: str, module: nn.Module, method: Method, latent: Tensor | None, template: SignActivation | None
) -> None:
    weight = cast(nn.Parameter, module.weight)
    if latent is not None:
        weight.data.copy_(latent)
    if method.freezes_latent:
        weight.requires_grad_(False)
    parametrization = BinaryWeight(method, swapped_groups(module)).train(module.training)
    parametrize.register_parametrization(module, "weight", parametrization, unsafe=True)  # shapes: check_method's
    module.register_load_state_dict_pre_hook(_accept_float_checkpoint)  # type: ignore[no-untyped-call]
    if template is not None:
        activation = copy.deepcopy(template)
        activation.layer = name
        activation.attach(module)
        activation.to(next(module.parameters()).device)
        parametrization.advanced = parametrization.advanced and not activation.needs_advance
        activation.take_over_padding(module)
        if activation.pads:
            module.padding = (0,) * (len(activation.pads) // 2)  # type: ignore[assignment]
        module.add_module(ACTIVATION, activation.train(module.training))
        module.register_forward_pre_hook(_binarize_input, with_kwargs=True)


def _binarize_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    activation = getattr(module, ACTIVATION)
    if args:
        return (activation(args[0]), *args[1:]), kwargs
    return args, {**kwargs, "input": activation(kwargs["input"])}


def _accept_float_checkpoint(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """A plain float checkpoint loads as if it had been loaded before `binarize_`.

    `x.weight` is taken for the latent, and the method's state, which no float checkpoint holds, is made for it anew.
    """
    original = f"{prefix}parametrizations.weight.original"
    if f"{prefix}weight" not in state or original in state:
        return
    latent = state.pop(f"{prefix}weight")
    for name, value in _fresh_state(module, latent).items():
        state.setdefault(prefix + name, value)
    state.setdefault(original, latent)


def _fresh_state(module: nn.Module, latent: Tensor) -> dict[str, Tensor]:
    """State of the method and the activation of a layer whose latent is replaced; nothing if it does not fit."""
    parametrization, current = binary_weight_of(module), module.parametrizations.weight.original  # type: ignore[union-attr]
    assert parametrization is not None
    assert isinstance(current, Tensor)
    if latent.shape != current.shape:
        return {}  # torch reports the mismatch
    method = copy.deepcopy(parametrization.method)
    filters = filters_first(latent.detach().to(current.dtype), parametrization.groups)
    initial = method.initial(filters)
    method.attach(initial)
    fresh = {f"parametrizations.weight.0.method.{name}": value for name, value in method.state_dict().items()}
    if initial is not filters:
        fresh["parametrizations.weight.original"] = filters_first(initial, parametrization.groups)
    activation = getattr(module, ACTIVATION, None)
    kept = {} if activation is None else activation.state_dict()
    return fresh | {f"{ACTIVATION}.{name}": value for name, value in kept.items()}


def _report(model: nn.Module, reasons: dict[str, str], template: SignActivation | None) -> Report:
    activation = template.key if template is not None else None
    done = {layer.name: layer for layer in binary_layers(model)}
    rows = []
    for name, module in model.named_modules():
        kind = type(module).__name__.removeprefix("Parametrized")
        if name in done:
            layer = done[name]
            rows.append(LayerReport(name, kind, tuple(layer.latent.shape), layer.method.key, activation, ""))
        elif layer_kind(module) or name in reasons:
            weight = module._parameters.get("weight")
            shape = () if weight is None or (name in reasons and "unknown" in reasons[name]) else tuple(weight.shape)
            rows.append(LayerReport(name, kind, shape, None, None, reasons.get(name, "kept by policy")))
    return Report(tuple(rows))


def param_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser: latents and learned scales of methods that forbid L2 get no weight decay.

    Args:
        model: A binarised (or float) model.
        weight_decay: Weight decay of all other parameters.

    Returns:
        One or two groups over all trainable parameters, each with its `weight_decay`.
    """
    exempt: set[int] = set()
    for layer in binary_layers(model):
        if layer.method.forbids_l2:
            exempt |= {id(layer.latent), *map(id, layer.method.parameters())}
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if id(p) not in exempt], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) in exempt], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def advance(model: nn.Module, progress: float) -> None:
    """Moves every method's schedule and applies its projection; call it before every training step.

    Args:
        model: A binarised model; a float one is left alone.
        progress: step / total steps, in [0, 1].

    Raises:
        InputError: `progress` lies outside [0, 1].
        StateError: A selection over all layers keeps no weight of a layer (multi_prize); the error names it.
    """
    if not 0 <= progress <= 1:
        raise InputError(f"progress is {progress!r}; it is step / total steps and must lie in [0, 1].")
    alike: dict[type[Method], list[Method]] = {}
    for layer in binary_layers(model):
        layer.parametrization.advanced = True
        layer.method.advance(progress)
        if layer.activation is not None:
            layer.activation.advance(progress)
        layer.project_()
        alike.setdefault(type(layer.method), []).append(layer.method)
    for kind, found in alike.items():
        kind.advance_together(found)


def binary_weights(model: nn.Module) -> dict[str, Tensor]:
    """Float state-dict name -> binary weight, exactly -1/+1 (0 where pruned), of every binarised layer.

    Raises:
        InputError: A latent weight holds NaN; the error names the layer.
        StateError: The model is not binarised.
    """
    weights = {weight_name(layer.name): layer.binary() for layer in binary_layers(model)}
    if not weights:
        raise StateError("the model has no binary layer; call equibit.binarize_(model, method) first.")
    return weights
