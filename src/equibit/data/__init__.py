"""Data sets as tensors: `load("mnist")` gives every image, `augment` varies a batch on its device."""

from equibit.data.augment import Draw, apply, augment, draw, kinds, normalize
from equibit.data.dataset import Dataset, DataWarning, FileCheck, Split, TensorSplit, sequential
from equibit.data.files import root
from equibit.data.registry import DataEntry, check, classes, entries, entry, fetch, in_shape, load, names

__all__ = [
    "DataEntry",
    "DataWarning",
    "Dataset",
    "Draw",
    "FileCheck",
    "Split",
    "TensorSplit",
    "apply",
    "augment",
    "check",
    "classes",
    "draw",
    "entries",
    "entry",
    "fetch",
    "in_shape",
    "kinds",
    "load",
    "names",
    "normalize",
    "root",
    "sequential",
]
