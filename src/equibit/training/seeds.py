"""Independent random streams, each a pure function of the recipe's seed and the epoch.

Every epoch starts its streams anew, so a training resumed at an epoch boundary needs no generator state.
"""

import hashlib

import torch


def stream_seed(seed: int, purpose: str, epoch: int = 0) -> int:
    """A 63-bit seed; different for every (seed, purpose, epoch)."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{epoch}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, purpose: str, epoch: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of one stream."""
    return torch.Generator(device).manual_seed(stream_seed(seed, purpose, epoch))
