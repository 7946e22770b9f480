"""Fixtures that several test files share."""

from small_data import cifar_published, small_cifar, small_mnist

__all__ = ["cifar_published", "small_cifar", "small_mnist"]
