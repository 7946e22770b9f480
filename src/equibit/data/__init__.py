"""Data sets as tensors: `load("mnist")` gives every image, `augment` varies a batch on its device."""

from equibit.data.augment import augment, kinds, normalize
from equibit.data.dataset import Dataset, DataWarning, FileCheck
from equibit.data.files import root
from equibit.data.registry import DataEntry, check, entries, entry, fetch, load, names

__all__ = [
    "DataEntry",
    "DataWarning",
    "Dataset",
    "FileCheck",
    "augment",
    "check",
    "entries",
    "entry",
    "fetch",
    "kinds",
    "load",
    "names",
    "normalize",
    "root",
]
