"""Equibit inside other training loops, one file per library; each needs the extra of the same name."""
