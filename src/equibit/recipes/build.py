"""From a recipe to its network."""

from torch import nn

from equibit import activations, convert, methods
from equibit.recipes.schema import Recipe, create_model


def build(recipe: Recipe) -> nn.Module:
    """The network of a recipe, binarised unless it is a float twin; fresh weights from torch's generator."""
    model = create_model(recipe.model)
    if recipe.method is not None:
        method = methods.create(recipe.method.name, **recipe.method.arguments)
        convert.binarize_(model, method, activation=_activation(recipe), skip=convert.POLICIES[recipe.skip])
    return model


def _activation(recipe: Recipe) -> activations.SignActivation | None:
    if recipe.activation is None:
        return None
    return activations.create(recipe.activation.name, pad_value=recipe.activation.pad_value)
