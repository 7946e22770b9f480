"""Binarisation methods, one file per paper.

`list()` names them, `create(key, **arguments)` makes one, `check_method` tests a new one against the contract.
"""

from equibit.methods.bi_half import BiHalf
from equibit.methods.check import check_method
from equibit.methods.protocol import Method
from equibit.methods.registry import REGISTRY, create, names, resolve
from equibit.methods.sign import Sign

list = names

__all__ = ["REGISTRY", "BiHalf", "Method", "Sign", "check_method", "create", "list", "names", "resolve"]
