"""Fixtures that several test files share."""

import signal

from small_data import cifar_published, small_cifar, small_cifar100, small_fashion, small_mnist

__all__ = ["cifar_published", "small_cifar", "small_cifar100", "small_fashion", "small_mnist"]

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job begins with it ignored; tests send it
