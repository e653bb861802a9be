"""Posts for a minute and more at a set rate, from one process that makes them at hardly any cost.

The bodies of one round (each device once) are built beforehand; a later round is the same text with other sequence
numbers and times, put in by a replacement of fixed width. So the generator takes a few percent of the machine that it
shares with everything it loads, and no report is a duplicate.
"""

import sys
from collections import Counter
from collections.abc import Sequence

from deploy.bench.load import post_all, requests_of
from deploy.bench.traffic import Traffic, chunks
from ingest.clock import WallClock
from ingest.events import Report, encoder

POST_REPORTS = 500
PART_SECONDS = 2.0
CONNECTIONS = 24
# Sequence numbers of a round: a fixed-width prefix that names it, and the device's own number within.
_FIRST_ROUND, _ROUNDS_MAX = 1000, 8999
_SEQ_SPAN = 10**9


class Rounds:
    """Requests, a round of the fleet after the other.

    Attributes:
        posted: reports handed out so far.
    """

    def __init__(self, url: str, token: str, devices: int, first: int = 0) -> None:
        """Build the round that all others are made of.

        Args:
            url: the reports listener.
            token: to post with.
            devices: in the fleet; a multiple of `POST_REPORTS`.
            first: number of the first round: beyond those that another one has posted for the same fleet.
        """
        if devices % POST_REPORTS:
            raise ValueError(f"{devices} devices do not fill posts of {POST_REPORTS}")
        self.posted = 0
        self._number = first
        self._at_ms = WallClock().now_ms()
        made = Traffic(devices, seed=5, pseudonyms=False).reports(devices, self._at_ms)
        bodies = [encoder.encode(_numbered(part)) for part in chunks(made, POST_REPORTS)]
        self._requests = requests_of(url, token, bodies)
        self._left: list[bytes] = []

    def take(self, reports: int) -> list[bytes]:
        """Return the next requests, with the present time in them: at most so many reports, and at least one post."""
        if not self._left:
            self._left = self._round()
        posts = max(1, reports // POST_REPORTS)
        taken, self._left = self._left[:posts], self._left[posts:]
        self.posted += len(taken) * POST_REPORTS
        return taken

    def _round(self) -> list[bytes]:
        if self._number > _ROUNDS_MAX:
            raise ValueError(f"round {self._number} is one too many")
        before, after = b'"seq":%d' % _FIRST_ROUND, b'"seq":%d' % (_FIRST_ROUND + self._number)
        old, new = b'"at_ms":%d' % self._at_ms, b'"at_ms":%d' % WallClock().now_ms()
        self._number += 1
        return [one.replace(before, after).replace(old, new) for one in self._requests]


def _numbered(reports: Sequence[Report]) -> Sequence[Report]:
    for place, report in enumerate(reports):
        report.seq = _FIRST_ROUND * _SEQ_SPAN + place
    return reports


def post_at(url: str, rounds: Rounds, reports_per_second: float, seconds: float) -> Counter[int]:
    """Post at a rate for a time; return the answers by status code."""
    codes: Counter[int] = Counter()
    left = int(reports_per_second * seconds)
    while left > 0:
        requests = rounds.take(min(left, int(reports_per_second * PART_SECONDS)))
        codes += post_all(url, requests, CONNECTIONS, reports_per_second / POST_REPORTS)[1]
        left -= len(requests) * POST_REPORTS
    return codes


def main(url: str, token: str, devices: int, reports_per_second: float, first: int) -> None:
    """Post until ended; print how many reports were accepted, every other second."""
    rounds = Rounds(url, token, devices, first)
    sys.stdout.write("ready\n")
    while True:
        sys.stdout.flush()
        codes = post_at(url, rounds, reports_per_second, PART_SECONDS)
        sys.stdout.write(f"{codes[202] * POST_REPORTS}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
