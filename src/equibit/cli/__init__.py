"""The `equibit` command: the only place that parses arguments or prints."""

from equibit.cli.main import main

__all__ = ["main"]
