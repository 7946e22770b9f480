"""The contract suite every method must pass, for our registry and for methods written elsewhere."""

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from equibit.errors import EquibitError, StateError
from equibit.methods.protocol import Method, effective

_SHAPES = ((4, 9), (5, 1), (3, 7, 5), (4, 6, 3, 3), (2, 3, 2, 2, 2))
_DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def _latents() -> Iterator[tuple[str, Tensor]]:
    """Random, tied, constant and zero weights in every rank and dtype."""
    generator = torch.Generator().manual_seed(0)
    for shape in _SHAPES:
        for dtype in _DTYPES:
            normal = torch.randn(shape, generator=generator, dtype=torch.float64)
            for kind, values in (
                ("random", normal),
                ("tied", (normal * 2).round() / 2),
                ("zero", torch.zeros(shape)),
                ("negative zero", -torch.zeros(shape)),
                ("constant", torch.full(shape, -0.25)),
            ):
                yield f"{kind} {dtype} {shape}", values.to(dtype)


def check_method(method: Method) -> int:
    """Runs the contract on copies of `method` and returns the number of cases that passed.

    Checked on random, tied, constant and zero weights of two to five dimensions in float32, float64 and bfloat16:
    values, shapes, dtypes, finite scales and gradients, eval equals scale * binary + offset, no side effect on the
    latent, determinism, schedules as pure functions of progress, NaN refused.

    Raises:
        StateError: A case failed; the message names the case and what was found.
    """
    cases = 0
    for name, latent in _latents():
        for check in (_check_values, _check_hard, _check_gradient, _check_schedule, _check_nan):
            _run(check, method, name, latent)
            cases += 1
    return cases


def _run(check: Callable[[Method, Tensor], None], method: Method, name: str, latent: Tensor) -> None:
    fresh = copy.deepcopy(method)
    try:
        fresh.attach(latent.clone())
        check(fresh, latent.clone())
    except (AssertionError, EquibitError) as error:
        raise StateError(f"{type(method).__name__} fails {check.__name__[7:]!r} on {name}: {error}") from error


def _require(condition: object, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _check_values(method: Method, latent: Tensor) -> None:
    before = latent.clone()
    binary = method.binary(latent)
    _require(torch.equal(latent, before), "binary() changed the latent weight")
    _require(binary.shape == latent.shape and binary.dtype == latent.dtype, "shape or dtype of binary() differ")
    allowed = (-1, 0, 1) if method.levels == "three" else (-1, 1)
    found = torch.unique(binary).tolist()
    _require(all(v in allowed for v in found), f"binary() holds {found}")
    _require(torch.equal(binary, method.binary(latent)), "binary() is not deterministic")
    for what, values in (("scale", method.scale(latent)), ("offset", method.offset(latent))):
        if values is not None:
            _require(values.shape == latent.shape[:1], f"{what}() has shape {tuple(values.shape)}")
            _require(values.isfinite().all(), f"{what}() is not finite")
            _require(latent.dtype != torch.float64 or values.dtype == latent.dtype, f"{what}() left float64")


def _check_hard(method: Method, latent: Tensor) -> None:
    method.eval()
    hard = effective(method.binary(latent).to(method.scale(latent).dtype), method.scale(latent), method.offset(latent))
    _require(torch.equal(method(latent), hard.to(latent.dtype)), "eval forward is not scale * binary + offset")


def _check_gradient(method: Method, latent: Tensor) -> None:
    trained = [*method.parameters(), *([] if method.freezes_latent else [latent.requires_grad_()])]
    weight = method.train()(latent)
    _require(weight.shape == latent.shape and weight.dtype == latent.dtype, "shape or dtype of forward() differ")
    for gradient in torch.autograd.grad(weight.square().sum() + weight.sum(), trained):
        _require(gradient.isfinite().all(), "the gradient is not finite")


def _check_schedule(method: Method, latent: Tensor) -> None:
    method.train()
    method.advance(0.25)
    first = method(latent)
    method.advance(1.0)
    method.advance(0.25)
    _require(torch.equal(first, method(latent)), "advance() is not a pure function of progress")
    method.project_(latent)
    _require(latent.isfinite().all(), "project_() made the latent weight non-finite")


def _check_nan(method: Method, latent: Tensor) -> None:
    latent.view(-1)[-1] = torch.nan
    try:
        method.binary(latent)
    except ValueError:
        return
    raise AssertionError("binary() accepted NaN")
