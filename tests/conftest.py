"""What every test shares: hypothesis profiles, the reference material beside the checkout, a count of skips.

A skip is a check that did not run, so the run's last lines say how many there were and what they lacked.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from deploy.kafka.broker import LocalKafka
    from ingest.topics import Topics

REPOSITORY = Path(__file__).resolve().parent.parent

# Folders whose tests start whole Cordons and brokers.
LONGEST = ("tests/deploy/distributed", "tests/system", "tests/deploy/workers", "tests/deploy", "tests/dashboards")

# No deadline: a shared machine pauses a test for longer than any example takes. Continuous integration draws the same
# examples in every run, so that a red run is the change's doing; a developer's runs go on looking for new ones.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("developer", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") == "true" else "developer"))


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Return the folder `shared` beside the checkout: published schemas and real samples that tests hold outputs to.

    Skips where it is absent, and fails instead when CI=true: there it has to be provided.
    """
    shared = REPOSITORY.parent / "shared"
    if not shared.is_dir():
        lacking = "../shared (published schemas and real samples) is missing beside the checkout"
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI=true, and {lacking}: provide it", pytrace=False)
        pytest.skip(lacking)
    return shared


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """Run one Kafka broker for the whole session, with plaintext, TLS, mutual TLS and SASL listeners.

    Tests share it and keep apart by lanes; whoever takes the broker away uses `own_kafka`.
    """
    # Imported here and below: a run of tests that need no Kafka does not wait for its client to load.
    from deploy.kafka.broker import LocalKafka
    from deploy.kafka.security import make_security
    from support.kafka import require_kafka

    require_kafka()
    security = make_security(tmp_path_factory.mktemp("kafka-certificates"), {"cordon": "cordon-password"})
    with LocalKafka(security=security) as broker:
        yield broker


@pytest.fixture
def own_kafka() -> Iterator[LocalKafka]:
    """Run a Kafka broker for one test, which may kill, pause and start it."""
    from deploy.kafka.broker import LocalKafka
    from support.kafka import require_kafka

    require_kafka()
    with LocalKafka() as broker:
        yield broker


@pytest.fixture
def kafka_lane(kafka: LocalKafka) -> Iterator[Topics]:
    """Return a lane of the test's own on the shared broker, two device partitions and a keyed one, its topics made."""
    from support.kafka import lane_on

    with lane_on(kafka) as topics:
        yield topics


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, file by file: begun last, one file would hold up the end of a run in parallel."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))

    def rank(item: pytest.Item) -> tuple[int, int]:
        folder = item.path.relative_to(REPOSITORY).parent.as_posix()
        return next((i for i, first in enumerate(LONGEST) if folder.startswith(first)), len(LONGEST)), -slow[item.path]

    items.sort(key=rank)


def skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return why a skipped test was skipped, without pytest's prefix."""
    # pytest holds a skip as (path, line, message); anything else is already text.
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(report.longrepr)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    """Count the skips by reason, after everything that pytest itself has to say."""
    # Outermost wrapper: what follows the yield is written after the terminal reporter's own last line.
    result = yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        skips = Counter(skip_reason(report) for report in reporter.stats.get("skipped", []))
        reporter.ensure_newline()
        reporter.write_line(f"skipped tests by reason: {'' if skips else 'none'}".rstrip())
        for reason, count in skips.most_common():
            reporter.write_line(f"  {count:4d}  {reason}")
    return result
