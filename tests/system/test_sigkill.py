"""`cordon up` killed with SIGKILL at random moments under load: nothing acknowledged is lost, nothing counts twice.

Senders number their reports over all lives of the process and keep what became of each post. A post whose answer never
came is sent again by some senders until it is acknowledged, and given up by others; what was given up may be in or out.
At the end the store, grouping's counts and the kill switch's events are held to these books, exactly.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import httpx2
import pytest

from support.system import CordonProcess, eventually
from support.system_reports import bsod, check_in, declaration, now_ms, update
from support.system_streams import Listener

KILLS = 4
SENDERS = 4
DEVICES = 400
PRODUCT, OLD, NEW = "sensor", "7.0", "7.1"
PUSHED = range(0, DEVICES, 10)
CRASHES_FROM_POST = 12

pytestmark = [pytest.mark.fault, pytest.mark.timeout(180)]


class Post:
    """One post and what became of it: how often it was sent, and whether it was acknowledged."""

    def __init__(self, number: int, reports: list[dict[str, Any]]) -> None:
        self.number = number
        self.reports = reports
        self.sent = 0
        self.acknowledged = False


class Sender(threading.Thread):
    """Posts one batch after another until told to end; gives a post up, or sends it again, by its own habit."""

    def __init__(self, process: CordonProcess, name: int, seed: int, end: threading.Event) -> None:
        super().__init__(daemon=True)
        self.posts: list[Post] = []
        self._process = process
        self._number = name
        self._retries = name % 2 == 0
        self._rng = random.Random(seed)
        self._end = end
        self._http = httpx2.Client(timeout=10, trust_env=False)
        self._headers = {"content-type": "application/json", **process.bearer("agents")}

    def run(self) -> None:
        while not self._end.is_set():
            number = self._number + SENDERS * len(self.posts)
            post = Post(number, self._batch(number, len(self.posts)))
            self.posts.append(post)
            while not self._send(post) and self._retries:
                time.sleep(0.02)
            time.sleep(0.005)
        self._http.close()

    def _batch(self, number: int, turn: int) -> list[dict[str, Any]]:
        """Return check-ins of own devices under a build that names the post; later on, crashes too."""
        devices = [(number * 10 + place) % DEVICES // SENDERS * SENDERS + self._number for place in range(10)]
        batch = [check_in(device, {f"contoso/{PRODUCT}": OLD}, os_build=f"22631.{number}") for device in devices]
        if turn > CRASHES_FROM_POST:
            # Most victims have the update; a few devices without it crash as ever.
            pushed = self._rng.random() < 0.8
            batch.append(bsod(self._rng.choice(PUSHED) if pushed else self._rng.choice(devices)))
            batch.append(update("offered", self._rng.choice(devices), "other", "1.0"))
        return batch

    def _send(self, post: Post) -> bool:
        post.sent += 1
        try:
            url = f"{self._process.urls['reports']}/v1/reports"
            answer = self._http.post(url, json=post.reports, headers=self._headers)
        except httpx2.HTTPError:
            return False
        assert answer.status_code in (202, 503), answer.text
        if answer.status_code == 202:
            assert answer.json()["accepted"] == len(post.reports), answer.text
            post.acknowledged = True
        return post.acknowledged


class Series:
    """One series of kills, with the books and the process as they stand after it."""

    def __init__(self, process: CordonProcess, seed: int) -> None:
        self.process = process
        self.rollout = process.declare(
            declaration(PRODUCT, NEW, pushed=[self._push(tenant) for tenant in range(4)], starts_at_ms=now_ms())
        )
        process.accept([check_in(device, {f"contoso/{PRODUCT}": OLD}) for device in range(DEVICES)])
        end = threading.Event()
        self.first = now_ms()
        self._senders = [Sender(process, name, seed * 10 + name, end) for name in range(SENDERS)]
        rng = random.Random(seed)
        for sender in self._senders:
            sender.start()
        for _ in range(KILLS):
            time.sleep(rng.uniform(0.2, 1.2))
            process.kill()
            process.start()
        time.sleep(0.5)
        end.set()
        for sender in self._senders:
            sender.join(20)
            assert not sender.is_alive()
        self.posts = [post for sender in self._senders for post in sender.posts]

    @staticmethod
    def _push(tenant: int) -> dict[str, Any]:
        names = ("acme", "bravo", "cargo", "delta")
        devices = [f"host-{device}" for device in PUSHED if device % 4 == tenant]
        return {"tenant": names[tenant], "devices": devices, "from_ms": now_ms()}

    def reports(self, *kinds: str) -> Iterator[tuple[Post, dict[str, Any]]]:
        """Yield the reports of these kinds with their posts."""
        for post in self.posts:
            for report in post.reports:
                if report["kind"] in kinds:
                    yield post, report


# A round of chunks that ends between two kills, one that never does, and one in between.
SNAPSHOT_SECONDS = {1: 2, 2: 60, 3: 7}


@pytest.fixture(scope="module", params=sorted(SNAPSHOT_SECONDS))
def series(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Series]:
    """Run one seeded series of kills."""
    data, seconds = tmp_path_factory.mktemp("sigkill") / "data", SNAPSHOT_SECONDS[request.param]
    process = CordonProcess(data, store=True, linger_ms=30, snapshot_seconds=seconds, blind_seconds=60)
    try:
        yield Series(process.start(), request.param)
    finally:
        process.close()


def test_the_series_was_one(series: Series) -> None:
    """Posts were acknowledged, and some were not: otherwise the other tests would show nothing."""
    assert sum(post.acknowledged for post in series.posts) > 40
    assert any(post.sent > 1 for post in series.posts)
    assert any(not post.acknowledged for post in series.posts)


@pytest.mark.parametrize(("table", "kinds"), [("crashes", ("bsod", "boot_loop")), ("installs", ("offered",))])
def test_raw_reports_are_all_there_and_none_is_invented(series: Series, table: str, kinds: tuple[str, ...]) -> None:
    """Each acknowledged report is stored, once for a post sent once; nothing is stored that was not sent."""
    least = {report["seq"] for post, report in series.reports(*kinds) if post.acknowledged}
    most = Counter({report["seq"]: post.sent for post, report in series.reports(*kinds)})
    assert least
    minutes = {"crashes": "crash_minutes", "installs": "install_minutes"}[table]
    # A block's minutes become visible a moment after its rows.
    for _ in eventually(20, f"all {table} in the store, and as many in {minutes}"):
        rows = series.process.query(f"SELECT seq, count() FROM {table} GROUP BY seq")
        ((total,),) = series.process.query(f"SELECT sum({table}) FROM {minutes}")
        found = Counter({int(seq): int(count) for seq, count in rows})
        if least <= set(found) and int(total) == found.total():
            break
    assert found <= most


def test_minute_counts_of_check_ins_are_exact(series: Series) -> None:
    """Each post has a build of its own: its check-ins are counted in full, as often as it may have been taken."""
    sql = "SELECT os_build, sum(check_ins) FROM check_in_minutes FINAL GROUP BY os_build"
    wanted = {f"22631.{post.number}" for post in series.posts if post.acknowledged}
    for _ in eventually(20, "all check-ins in the store"):
        found = {build: int(count) for build, count in series.process.query(sql)}
        if all(found.get(build, 0) >= 10 for build in wanted):
            break
    for post in series.posts:
        counted = found.pop(f"22631.{post.number}", 0)
        if post.acknowledged:
            assert counted in range(10, 10 * post.sent + 1, 10), (post.number, post.sent)
        else:
            assert counted <= 10 * post.sent
    assert found == {"22631.3880": DEVICES}


def test_grouping_counts_each_device_and_each_crash_once(series: Series) -> None:
    """The fleet holds each device once, and a device's first crash is one crash however often it was sent."""
    process = series.process
    for _ in eventually(10, "the whole fleet"):
        devices = [value for name, value in process.metrics().items() if name.startswith("cordon_fleet_devices{")]
        if sum(devices) >= DEVICES:
            break
    assert sum(devices) == DEVICES

    # What is in the store is what was in the log, whether or not it was acknowledged: grouping has to agree with it.
    device_of = {report["seq"]: report["device"] for _, report in series.reports("bsod")}
    crashed = {device_of[int(seq)] for (seq,) in process.query("SELECT DISTINCT seq FROM crashes")}
    pushed = {f"host-{device}" for device in PUSHED}
    # A device that has not crashed yet makes the verdict speak again, with the counts as they stand.
    marker = next(device for device in range(1, DEVICES, 2) if f"host-{device}" not in crashed)
    process.accept([bsod(marker)])
    wanted = len(crashed & pushed), len(crashed - pushed) + 1
    said = None
    for _ in range(200):
        evidence = process.verdict(series.rollout)["evidence"]
        said = evidence["crashes_exposed"], evidence["crashes_control"]
        if said == wanted:
            break
        time.sleep(0.05)
    assert said == wanted
    assert evidence["exposed"] == len(PUSHED)


def test_posts_sent_again_are_duplicates_to_grouping(series: Series) -> None:
    """Every acknowledged report, posted once more to the last life, is a duplicate and no second word."""
    process = series.process
    again = [post for post in series.posts if post.acknowledged][:20]
    before = process.metrics()
    for post in again:
        process.accept(post.reports)
    wanted = sum(len(post.reports) for post in again)
    name = 'cordon_grouped_total{outcome="duplicate"}'
    for _ in eventually(10, "the duplicates"):
        after = process.metrics()
        if after.get(name, 0) - before.get(name, 0) >= wanted:
            break
    assert after[name] - before.get(name, 0) == wanted


def test_the_kill_is_raised_once(series: Series) -> None:
    """However often detection and signals began again, the rollout's events are numbered 1, 2, 3 with one kill."""
    process = series.process
    # How many crashes were posted between two kills is chance, and whether they suffice; more of them do.
    victims = iter(PUSHED)
    for _ in eventually(30, "the kill"):
        if process.verdict(series.rollout)["killed"]:
            break
        process.accept([bsod(device) for device in islice(victims, 10)])
    listener = Listener(process.urls["streams"], process.bearer("rollouts"))
    for _ in eventually(5, "the kill on the stream"):
        events = listener.of(series.rollout)
        if any(event["state"] == "killed" for event in events):
            break
    listener.leave()
    assert [event["number"] for event in events] == list(range(1, len(events) + 1))
    assert [event["state"] for event in events].count("killed") == 1
    wanted = [[str(event["number"]), event["state"], "1"] for event in events]
    for _ in eventually(20, f"the events in the store: {wanted}"):
        stored = process.query(
            f"SELECT number, state, count() FROM killswitch WHERE rollout = '{series.rollout}' "
            f"GROUP BY ALL ORDER BY number"
        )
        if len(stored) >= len(wanted):
            break
    assert stored == wanted


def test_nothing_was_complained_about(series: Series) -> None:
    """No life of the process found fault with what the ones before it had left, and no record was dead-lettered."""
    assert series.process.said == ""
    assert not [name for name in series.process.metrics() if name.startswith("cordon_deadletters_total{")]
