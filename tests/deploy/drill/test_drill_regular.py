"""Drills again and again: when the next is due, what is counted, and that nothing in one ends the process."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.drill.access import Access, token_in
from deploy.drill.client import RolloutWord
from deploy.drill.errors import DrillError
from deploy.drill.regular import DAY_MS, HOUR_MS, RegularDrill, daily_drill, next_daily_ms, note
from deploy.drill.run import last_passed_ms, new_plan, run_drill
from deploy.embedded import RunningEmbedded, running
from detectors.drill import PRODUCT, TENANTS, VENDOR, DrillPlan, version_of
from detectors.drill_judge import DrillResult, Failure
from ingest.clock import WallClock
from ingest.gateway.tenants import Role, TokenBook
from ingest.metrics import Metrics
from ingest.settings import Settings
from signals.client import PublicKeys
from support.switches import KEYS
from support.system import eventually

T0 = 1_721_362_140_000


@contextmanager
def embedded(data: Path, **settings: Any) -> Iterator[RunningEmbedded]:
    """Run an embedded Cordon on free ports while the block lasts."""
    known: dict[str, Any] = {"store": False, "reports_port": 0, "streams_port": 0, "query_port": 0}
    with running(Settings(data_dir=str(data), **known, **settings)) as cordon:
        yield cordon


def access_to(cordon: RunningEmbedded) -> Access:
    """Return how `cordon up` gets at itself."""
    keys = PublicKeys.parse(cordon.public_key_path().read_bytes())
    token = token_in(cordon.data_dir, cordon.embedded.parts.tokens)
    return Access(cordon.reports_url, cordon.streams_url, token, keys)


def quick_plan() -> DrillPlan:
    """Return a drill that begins now and is over in three seconds."""
    return DrillPlan(
        started_ms=WallClock().now_ms(), mark="01ab", settle_seconds=0.5, pace_seconds=0.03, limit_seconds=2.5
    )


@given(st.integers(0, 4_000_000_000_000), st.integers(0, 23))
def test_the_next_daily_drill_is_within_a_day_and_at_its_hour(now_ms: int, hour: int) -> None:
    due_ms = next_daily_ms(now_ms, hour)
    assert 0 < due_ms - now_ms <= DAY_MS
    assert due_ms % DAY_MS == hour * HOUR_MS


def word(version: str, killed: bool = True, decided_by: str = "detector", product: str = PRODUCT) -> RolloutWord:
    return RolloutWord(
        rollout="r-1",
        vendor=VENDOR,
        product=product,
        version=version,
        reason="kill_evidence",
        killed=killed,
        decided_by=decided_by,
    )


def test_only_a_drill_that_the_detector_killed_has_passed() -> None:
    early, late = version_of(T0, "aaaa"), version_of(T0 + DAY_MS, "bbbb")
    assert last_passed_ms([]) is None
    assert last_passed_ms([word(early), word(late, killed=False)]) == T0
    assert last_passed_ms([word(early), word(late, decided_by="Ada (ops)")]) == T0
    assert last_passed_ms([word(early), word(late, product="sensor")]) == T0
    assert last_passed_ms([word(early), word(late)]) == T0 + DAY_MS
    assert last_passed_ms([word("somebody's own version")]) is None


class Once:
    """A schedule of one drill, now, after which the regular drill is stopped."""

    def __init__(self, access: Callable[[], Access]) -> None:
        self.metrics = Metrics()
        self.told: list[DrillResult | DrillError] = []
        self.regular = RegularDrill(access, lambda now_ms: now_ms, WallClock(), self.metrics, self._tell)

    def _tell(self, result: DrillResult | DrillError) -> None:
        self.told.append(result)
        self.regular.stop()


def test_one_that_could_not_be_run_is_counted_and_told() -> None:
    nowhere = Access("http://127.0.0.1:9", "http://127.0.0.1:9", "secret", KEYS)
    once = Once(lambda: nowhere)
    once.regular.run()
    assert isinstance(once.told[0], DrillError)
    assert "no Cordon answers" in str(once.told[0])
    assert once.metrics.value("drills_total", result="not_run") == 1
    assert once.metrics.value("drill_last_success_timestamp") == 0


def test_a_fault_in_a_drill_ends_no_process() -> None:
    asked = iter([DrillError("not yet")])

    def access() -> Access:
        raise next(asked, ZeroDivisionError("a fault"))

    once = Once(access)
    once.regular.run()
    assert "ZeroDivisionError: a fault" in str(once.told[0])
    assert once.metrics.value("drills_total", result="not_run") == 1


@pytest.fixture
def due_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hour of the daily drill is now, and then tomorrow's."""
    waits = itertools.chain([0], itertools.repeat(DAY_MS))
    monkeypatch.setattr("deploy.drill.regular.next_daily_ms", lambda now_ms, hour: now_ms + next(waits))


@pytest.mark.usefixtures("due_at_once")
def test_cordon_up_passes_its_own_drill_and_its_metrics_say_so(tmp_path: Path) -> None:
    with embedded(tmp_path, drill_hour=3) as cordon:
        metrics = cordon.embedded.parts.metrics
        for _ in eventually(30, "the drill's end"):
            if metrics.value("drills_total", result="passed"):
                break
        passed_at = metrics.value("drill_last_success_timestamp")
        assert 0 < metrics.value("drill_seconds_to_kill") < 60
        assert 0 <= time.time() - passed_at < 60

        # A later process knows when one passed last, from the installation itself.
        later = RegularDrill(
            lambda: access_to(cordon), lambda now_ms: now_ms + DAY_MS, WallClock(), Metrics(), lambda _: None
        )
        thread = threading.Thread(target=later.run)
        thread.start()
        for _ in eventually(5, "the last success"):
            if later.metrics.value("drill_last_success_timestamp"):
                break
        later.stop()
        thread.join(5)
        assert later.metrics.value("drill_last_success_timestamp") == int(passed_at)


@pytest.mark.usefixtures("due_at_once")
def test_cordon_up_ends_in_the_middle_of_a_drill(tmp_path: Path) -> None:
    """Without waiting for the kill, and without counting a drill that was not run to its end."""
    with embedded(tmp_path, drill_hour=3) as cordon:
        metrics = cordon.embedded.parts.metrics
        for _ in eventually(10, "the drill's first report"):
            if metrics.value("reports_total", outcome="accepted"):
                break
        begun = time.monotonic()
    assert time.monotonic() - begun < 8
    assert not cordon.embedded.failed.is_set()
    assert not [one for one in ("passed", "failed", "not_run") if metrics.value("drills_total", result=one)]


@pytest.mark.parametrize(
    ("policy", "failure", "says"),
    [
        ("dry_run = true\n", Failure.DRY_RUN, "nobody obeys"),
        ("alpha_kill = 1e-100\nalpha_hold = 1e-100\n", Failure.NOT_KILLED, "evidence 10^"),
        ('[products."cordon/drill"]\ntenants_least = 9\n', Failure.HELD, "8 tenants < 9 needed"),
    ],
)
def test_a_policy_under_which_nothing_is_stopped_fails_it(
    tmp_path: Path, policy: str, failure: Failure, says: str
) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(policy)
    with embedded(tmp_path / "data", policy_file=str(file)) as cordon:
        wall = WallClock()
        result = run_drill(access_to(cordon), quick_plan(), wall)
        assert (result.passed, result.failure) == (False, failure), result.sentence
        assert says in result.sentence
        # Nobody starts the next one into the middle of this.
        with pytest.raises(DrillError, match="is still running"):
            run_drill(access_to(cordon), new_plan(wall), wall)


def test_with_grouping_and_detection_stalled_it_fails_and_says_where_to_look(tmp_path: Path) -> None:
    """The gateway takes the reports and the streams listener answers, but nothing happens in between."""
    with embedded(tmp_path, blind_seconds=1) as cordon:
        cordon.embedded.parts.pipeline.stop()
        result = run_drill(access_to(cordon), quick_plan(), WallClock())
    assert (result.passed, result.failure) == (False, Failure.NOT_JUDGED), result.sentence
    assert "do grouping and detection run" in result.sentence
    assert "the newest tick counted is" in result.sentence


def test_one_that_is_asked_to_end_has_no_result(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with embedded(tmp_path) as cordon, pytest.raises(DrillError, match="asked to end"):
        run_drill(access_to(cordon), new_plan(WallClock()), WallClock(), stop)


def test_the_embedded_cordon_has_one_only_if_asked_and_only_when_live(tmp_path: Path) -> None:
    book = TokenBook.load(tmp_path / "tokens.toml")
    assert daily_drill(Settings(), dict, book, Metrics()) is None
    assert daily_drill(Settings(drill_hour=4, lane="replay"), dict, book, Metrics()) is None
    assert daily_drill(Settings(drill_hour=0), dict, book, Metrics()) is not None


def test_an_embedded_cordon_that_waits_for_its_hour_ends_at_once(tmp_path: Path) -> None:
    with embedded(tmp_path, drill_hour=3) as cordon:
        assert any(thread.name == "drill" for thread in threading.enumerate())
        assert not cordon.embedded.failed.is_set()
    assert not any(thread.name == "drill" for thread in threading.enumerate())


def test_the_drills_token_is_made_once_for_its_tenants_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    book = TokenBook.load(tmp_path / "tokens.toml")
    token = token_in(tmp_path, book)
    assert token_in(tmp_path, book) == token
    principal = book.authenticate(f"Bearer {token}")
    assert principal is not None
    assert (principal.tenants, principal.roles) == (frozenset(TENANTS), frozenset({Role.REPORT, Role.ROLLOUT}))
    assert (tmp_path / "drill.token").stat().st_mode & 0o077 == 0


def test_a_token_that_cannot_be_had_says_what_to_do(tmp_path: Path) -> None:
    book = TokenBook.load(tmp_path / "tokens.toml")
    token_in(tmp_path, book)
    (tmp_path / "drill.token").write_text("cordon_other\n")
    with pytest.raises(DrillError, match="remove the file"):
        token_in(tmp_path, book)
    (tmp_path / "drill.token").unlink()
    with pytest.raises(DrillError, match="'drill' exists already"):
        token_in(tmp_path, book)
    assert not (tmp_path / "drill.token").exists()
    with pytest.raises(DrillError, match="cannot keep"):
        token_in(tmp_path / "none", book)


def result(**changes: Any) -> DrillResult:
    values: dict[str, Any] = {
        "passed": True,
        "failure": None,
        "sentence": "killed",
        "version": version_of(T0, "aaaa"),
        "rollout": "r-1",
        "seconds_to_kill": 2.5,
        "limit_seconds": 60.0,
        "crashes_posted": 9,
        "crashes_expected": 9,
        "counted": None,
    }
    return DrillResult(**values | changes)


def test_a_drill_that_was_run_is_counted_by_what_was_missing_and_only_a_pass_counts_as_the_last_success() -> None:
    metrics = Metrics()
    note(metrics, result(), T0)
    note(metrics, result(passed=False, failure=Failure.NOT_BELIEVED, seconds_to_kill=None), T0 + DAY_MS)
    assert metrics.value("drills_total", result="passed") == 1
    assert metrics.value("drills_total", result="failed") == 1
    assert metrics.value("drill_failures_total", failure="not_believed") == 1
    assert metrics.value("drill_seconds_to_kill") == 2.5
    assert metrics.value("drill_last_success_timestamp") == T0 / 1000
