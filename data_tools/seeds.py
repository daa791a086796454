"""Named random streams: the same seed and name give the same draws on every machine."""

import hashlib
import json

import numpy as np


def stream_bits(seed: int, *name: str | int) -> np.random.PCG64:
    """The bit generator of the stream `name` of `seed`."""
    text = json.dumps([seed, *name], separators=(",", ":"))
    return np.random.PCG64(int.from_bytes(hashlib.sha256(text.encode()).digest(), "big"))


def permutation(size: int, seed: int, *name: str | int) -> np.ndarray:
    """A uniform permutation of range(size), int64, from the stream `name` of `seed`.

    Built by sorting raw 64-bit draws: numpy keeps a bit generator's raw stream across versions,
    but not what its `shuffle` makes of it.
    """
    return np.argsort(stream_bits(seed, *name).random_raw(size), kind="stable")
