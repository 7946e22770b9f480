"""Timing an exported file beside other engines: `equibit.bench.measure.bench`. Needs no torch.

Nothing is imported here, because every engine's process imports this package and reports its own memory.
"""
