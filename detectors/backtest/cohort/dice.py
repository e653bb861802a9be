"""Random numbers by name: each purpose has a stream of its own, so a change to one part leaves the others alone."""

import zlib

import numpy as np


class Dice:
    """Streams of random numbers under one seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def stream(self, purpose: str, *numbers: int) -> np.random.Generator:
        """Return the stream of one purpose, from its beginning: the same names and numbers give the same draws.

        Args:
            purpose: what the draws are for.
            numbers: which chunk of devices, update or shock they are for.
        """
        return np.random.default_rng([self._seed, zlib.crc32(purpose.encode()), *numbers])
