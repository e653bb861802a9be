"""Makes every part of the embedded Cordon from its settings, and hands each what it needs.

This is the only place where the parts meet. The lane decides the clock: `live` goes by the machine's, any other lane by
a clock that a replay drives.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from starlette.applications import Starlette

from deploy.alerts.job import AlertsJob
from deploy.alerts.source import ReaderRows
from deploy.embedded.pipeline import Pipeline
from deploy.embedded.progress import PipelineProgress
from deploy.serving.configuration import ConfigurationError, policies_of, pseudonym_key_of, topics_of
from deploy.serving.console import console_of
from deploy.serving.pagers import pager_crew
from deploy.serving.streams import stream_service
from deploy.serving.vendors import is_vendor, vendor_source
from deploy.serving.webhooks import webhook_service
from detectors.planning import PolicyPlanner
from detectors.policy import Policies
from detectors.stage import DetectionStage
from ingest.clock import Clock, DrivenClock, WallClock
from ingest.gateway.app import reports_app
from ingest.gateway.gateway import Gateway
from ingest.gateway.tenants import TokenBook
from ingest.grouping.stage import GroupingSettings, GroupingStage, state_schema_of
from ingest.log.embedded import EmbeddedLog
from ingest.log.interface import TopicPartition
from ingest.log.owner import Owner
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.settings import Settings
from ingest.sight import SightSource
from ingest.store.chdb import ChdbStore
from ingest.store.http import application
from ingest.store.interface import database_of
from ingest.store.migrate import Migrator, Retention
from ingest.store.reader import ChdbReader
from ingest.store.sink import Sink
from ingest.topics import LIVE_LANE, Topics
from signals.delivery.app import streams_app
from signals.delivery.service import StreamService
from signals.delivery.webhooks.service import WebhookService
from signals.killswitch.keyring import KeyRing
from signals.killswitch.keys import KeyFiles
from signals.killswitch.leasing import Granting, terms_of
from signals.killswitch.people import Rules
from signals.killswitch.stage import SignalsStage
from signals.pagers.crew import PagerCrew


@dataclass(slots=True)
class Parts:
    """Everything an embedded Cordon is made of; without a store, its parts are None."""

    log: EmbeddedLog
    metrics: Metrics
    tokens: TokenBook
    keys: KeyFiles
    ring: KeyRing
    gateway: Gateway
    streams: StreamService
    webhooks: WebhookService
    pagers: PagerCrew
    pipeline: Pipeline
    reports_app: Starlette
    streams_app: Starlette
    store: ChdbStore | None
    reader: ChdbReader | None
    sink: Sink | None
    alerts: AlertsJob | None
    query_app: Starlette | None


def build(settings: Settings, on_failure: Callable[[BaseException], None]) -> Parts:
    """Make all parts; nothing runs yet.

    Args:
        settings: of this process.
        on_failure: called, from another thread, when a part fails for good.

    Raises:
        ConfigurationError: the lane, the policy or the pseudonym key can't be used.
        LogError: the data folder is in use or can't be used.
        StoreError: the store can't be opened or migrated.
    """
    data = Path(settings.data_dir)
    data.mkdir(parents=True, exist_ok=True)
    topics, policies, pseudonym_key = _topics(settings), policies_of(settings), pseudonym_key_of(settings)
    metrics, wall = Metrics(), WallClock()
    clock: Clock = wall
    if settings.lane != LIVE_LANE:
        # A driven lane's time stands still between drives: waiting for company by the wall clock only costs speed.
        clock, settings = DrivenClock(), msgspec.structs.replace(settings, linger_ms=0)
    tokens, keys = TokenBook.load(data / "tokens.toml"), KeyFiles(data)
    ring = KeyRing(keys, wall)
    log = EmbeddedLog(data / "log", topic_specs(topics), wall)
    progress = PipelineProgress(log, topics)
    gateway = Gateway(settings, log, topics, clock, metrics, tokens, pseudonym_key, progress)
    streams = stream_service(settings, log, topics, ring.trusted, metrics)
    webhooks, installation_key = webhook_service(settings, log, topics, wall, metrics, lambda: (0,))
    pipeline = Pipeline(
        log,
        _grouping(settings, topics, log, wall, metrics),
        _detection(settings, topics, log, wall, metrics, policies),
        [_signals(settings, topics, log, ring, wall, metrics, progress)],
        wall,
        metrics,
        blind_seconds=settings.blind_seconds if settings.lane == LIVE_LANE else None,
        on_failure=on_failure,
    )
    progress.pipeline = pipeline
    store, reader, sink, query_app = _store(settings, topics, log, metrics, wall, tokens)
    console = console_of(settings, streams, tokens.authenticate, wall, installation_key, pipeline, reader)
    return Parts(
        log=log,
        metrics=metrics,
        tokens=tokens,
        keys=keys,
        ring=ring,
        gateway=gateway,
        streams=streams,
        webhooks=webhooks,
        pagers=pager_crew(settings, log, topics, ring.trusted, wall, metrics, pipeline, lambda: (0,)),
        pipeline=pipeline,
        reports_app=reports_app(gateway, PolicyPlanner(policies)),
        streams_app=streams_app(
            streams,
            tokens.authenticate,
            wall,
            pipeline,
            terms_of(settings),
            webhook_desk=webhooks.desk,
            more_routes=console,
            vendor_source=vendor_source(settings, metrics, reader),
        ),
        store=store,
        reader=reader,
        sink=sink,
        alerts=_alerts(settings, topics, log, metrics, reader),
        query_app=query_app,
    )


def _signals(
    settings: Settings,
    topics: Topics,
    log: EmbeddedLog,
    ring: KeyRing,
    clock: Clock,
    metrics: Metrics,
    sight: SightSource,
) -> Owner:
    terms = terms_of(settings)
    stage = SignalsStage(
        log,
        topics,
        0,
        ring.signer,
        ring.trusted,
        clock,
        metrics,
        Rules.by(settings),
        granting=Granting(terms, sight) if terms is not None else None,
        key_changes=ring.take_changes,
    )
    return Owner(log, "signals/0", "signals", stage, TopicPartition(topics.name("switches"), 0), clock)


def _topics(settings: Settings) -> Topics:
    if settings.keyed_partitions != 1:
        raise ConfigurationError(
            f"keyed_partitions is {settings.keyed_partitions}, but one process drives one detection: leave it at 1, or "
            f"run on many machines (`cordon up --distributed`)"
        )
    return topics_of(settings)


def _detection(
    settings: Settings, topics: Topics, log: EmbeddedLog, clock: Clock, metrics: Metrics, policies: Policies
) -> tuple[DetectionStage, Owner]:
    stage = DetectionStage(
        topics,
        0,
        policies,
        blind_seconds=settings.blind_seconds,
        silence_seconds=settings.silence_seconds,
        activity_late_seconds=settings.activity_late_seconds,
        snapshot_seconds=settings.snapshot_seconds,
        metrics=metrics,
    )
    state = TopicPartition(topics.name("detection"), 0)
    return stage, Owner(log, "detection/0", "detection", stage, state, clock)


def _grouping(
    settings: Settings, topics: Topics, log: EmbeddedLog, clock: Clock, metrics: Metrics
) -> tuple[GroupingStage, Owner]:
    stage = GroupingStage(
        topics,
        GroupingSettings(
            partitions=range(settings.device_partitions),
            devices_max=settings.devices_max,
            silence_seconds=settings.silence_seconds,
            snapshot_seconds=settings.snapshot_seconds,
            state_schema=state_schema_of(settings.newest_schemas),
        ),
        metrics,
    )
    states = [TopicPartition(topics.name("fleet"), number) for number in range(settings.device_partitions)]
    return stage, Owner(log, "grouping", "grouping", stage, states, clock)


def _store(
    settings: Settings, topics: Topics, log: EmbeddedLog, metrics: Metrics, clock: Clock, tokens: TokenBook
) -> tuple[ChdbStore | None, ChdbReader | None, Sink | None, Starlette | None]:
    if not settings.store:
        return None, None, None, None
    path, database = Path(settings.data_dir) / "store", database_of(settings.lane)
    store = ChdbStore(path, database)
    Migrator(store, retention=Retention(raw_days=settings.raw_retention_days)).apply()
    reader = ChdbReader(path, database)
    query_app = application(reader, metrics, refuses=is_vendor(tokens))
    return store, reader, Sink(log, store, topics, metrics, clock), query_app


def _alerts(
    settings: Settings, topics: Topics, log: EmbeddedLog, metrics: Metrics, reader: ChdbReader | None
) -> AlertsJob | None:
    """Return the job that looks for crash patterns that belong to no rollout; None without a store, or by settings."""
    if reader is None or not settings.alerts_seconds:
        return None
    rows = ReaderRows(reader, database_of(settings.lane))
    return AlertsJob(log, topics, rows, metrics, every_seconds=settings.alerts_seconds)
