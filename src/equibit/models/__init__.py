"""Plain float networks by name: `create("lenet5", in_shape=(1, 28, 28))`. Nothing here is binary."""

from equibit.models.registry import ModelEntry, create, entries
from equibit.models.registry import names as list

__all__ = ["ModelEntry", "create", "entries", "list"]
