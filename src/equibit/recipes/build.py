"""From a recipe to its network."""

from typing import Any

from torch import nn

from equibit import activations, convert, methods, models
from equibit.recipes.schema import Recipe


def build(recipe: Recipe) -> nn.Module:
    """The network of a recipe, binarised unless it is a float twin; fresh weights from torch's generator."""
    section = recipe.model
    shape: dict[str, Any] = {} if section.in_shape is None else {"in_shape": section.in_shape}
    model = models.create(section.name, num_classes=section.num_classes, **shape, **section.options)
    if recipe.method is not None:
        method, sign = dict(recipe.method), dict(recipe.activation or {})
        convert.binarize_(
            model,
            methods.create(method.pop("name"), **method),
            activation=activations.create(sign.pop("name"), **sign) if sign else None,
            skip=convert.POLICIES[recipe.skip],
        )
    return model
