"""Bounded dictionaries: text to small numbers, so that a device's state is numbers only.

A dictionary never forgets and never grows past its bound: beyond it everything is number 0, `other`, so a sender that
invents names fills its own group and nobody's memory. Numbers are given in order of first sight, which is the order of
the log, so a partition that is read again gives the same numbers.
"""

from collections.abc import Iterable, Sequence

OTHER = 0


class Words(dict[str, int]):
    """Text to number, by subscription: an unknown text gets the next number while there is room."""

    def __init__(self, limit: int) -> None:
        """Make an empty dictionary of at most `limit` numbers, number 0 (`other`, the empty text) included."""
        super().__init__()
        self._limit = limit
        self.texts: list[str] = [""]
        self[""] = OTHER

    def __missing__(self, text: str) -> int:
        """Give `text` the next number, or 0 when the dictionary is full."""
        if len(self.texts) >= self._limit:
            return OTHER
        number = len(self.texts)
        self.texts.append(text)
        self[text] = number
        return number

    def numbers(self, texts: Iterable[str]) -> Iterable[int]:
        """Return an iterator over the numbers of `texts`."""
        return map(self.__getitem__, texts)

    def load(self, texts: Sequence[str]) -> None:
        """Replace the content by `texts`, whose first is the empty text."""
        self.clear()
        self.texts = list(texts)
        self.update({text: number for number, text in enumerate(texts)})
