"""Turns addresses into places in driver images.

Third step of the dump reader. Invariant: a lookup costs the logarithm of the number of images however they overlap, and
what it returns lies inside the image it names.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from ingest.endpoint.triage import Driver, UnloadedDriver
from ingest.signature import Frame

PE_HEADER_BYTES: Final = 0x1000
"""The first page of an image holds its headers: pointers there are handles, never return addresses."""

IMAGE_BYTES_MAX: Final = 2**32 - 1


class _Range(NamedTuple):
    base: int
    end: int
    name: str


class ImageMap:
    """Address ranges of images, looked up by address; of overlapping images the one with the highest base answers."""

    def __init__(self, ranges: Iterable[tuple[int, int, str]]) -> None:
        self._ranges = sorted(_Range(*each) for each in ranges)
        self._bases = [each.base for each in self._ranges]
        self._lowest = self._bases[0] if self._bases else 0
        self._highest = max((each.end for each in self._ranges), default=0)

    @classmethod
    def of_drivers(cls, drivers: Iterable[Driver]) -> "ImageMap":
        """Map loaded images."""
        return cls((driver.base, driver.base + driver.size_bytes, driver.name) for driver in drivers)

    @classmethod
    def of_unloaded(cls, drivers: Iterable[UnloadedDriver]) -> "ImageMap":
        """Map unloaded images, each over at most the 4 GiB that an image can have."""
        return cls((driver.base, min(driver.end, driver.base + IMAGE_BYTES_MAX), driver.name) for driver in drivers)

    def find(self, address: int) -> Frame | None:
        """Return the place an address points to, or None if no image holds it."""
        if not self._lowest <= address < self._highest:
            return None
        candidate = self._ranges[bisect_right(self._bases, address) - 1]
        return Frame(candidate.name, address - candidate.base) if address < candidate.end else None

    def scan(self, words: Sequence[int], frames_max: int) -> list[Frame]:
        """Return the places that stack words point to, in order; repeats in a row count once.

        Without unwind data this is an upper bound of the true call stack: values left over from earlier calls and
        pointers to data are among them. Order still tells: the innermost calls come first.
        """
        frames: list[Frame] = []
        for word in words:
            if len(frames) >= frames_max:
                break
            frame = self.find(word)
            if frame is None or frame.offset < PE_HEADER_BYTES or (frames and frames[-1] == frame):
                continue
            frames.append(frame)
        return frames
