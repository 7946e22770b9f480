"""Equibit trains, explains and deploys 1-bit neural networks.

Attributes load on first use (PEP 562): `import equibit` is cheap, and `equibit.bits`, `equibit.kernels` and
`equibit.runtime` work without torch.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_SUBMODULES = (
    "activations",
    "analysis",
    "bits",
    "data",
    "errors",
    "export",
    "figures",
    "integrations",
    "kernels",
    "methods",
    "models",
    "packed",
    "recipes",
    "runtime",
    "training",
)

_ATTRIBUTES = {
    "AdaBin": "methods",
    "BiHalf": "methods",
    "EquibitError": "errors",
    "GroupTransform": "methods",
    "IRNet": "methods",
    "MultiPrize": "methods",
    "ReCU": "methods",
    "ReSTE": "methods",
    "SiMaN": "methods",
    "Sign": "methods",
    "advance": "convert",
    "binarize_": "convert",
    "binary_weights": "convert",
    "export_onnx": "export",
    "first_and_last": "convert",
    "first_last_and_shortcuts": "convert",
    "first_only": "convert",
    "load_packed": "packed",
    "nothing": "convert",
    "pack": "packed",
    "param_groups": "convert",
    "recalibrate_batchnorm": "batch_norm",
    "save_packed": "packed",
    "summary": "analysis",
    "verify_onnx": "export",
}


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"equibit.{name}")
    if name in _ATTRIBUTES:
        return getattr(importlib.import_module(f"equibit.{_ATTRIBUTES[name]}"), name)
    raise AttributeError(f"module 'equibit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(["__version__", *_SUBMODULES, *_ATTRIBUTES])
