"""Binarisation methods, one file per paper.

`list()` names them, `create(key, **arguments)` makes one, `check_method` tests a new one against the contract.
"""

from equibit.methods.adabin import AdaBin
from equibit.methods.bi_half import BiHalf
from equibit.methods.check import check_method
from equibit.methods.group_transform import GroupTransform
from equibit.methods.ir_net import IRNet
from equibit.methods.multi_prize import MultiPrize
from equibit.methods.protocol import Method
from equibit.methods.recu import ReCU
from equibit.methods.registry import REGISTRY, create, names, resolve
from equibit.methods.reste import ReSTE
from equibit.methods.sign import Sign
from equibit.methods.siman import SiMaN

list = names

__all__ = [
    "REGISTRY",
    "AdaBin",
    "BiHalf",
    "GroupTransform",
    "IRNet",
    "Method",
    "MultiPrize",
    "ReCU",
    "ReSTE",
    "SiMaN",
    "Sign",
    "check_method",
    "create",
    "list",
    "names",
    "resolve",
]
