"""Every setting of Cordon, declared once: name, default, range and documentation.

Settings come from a TOML file (`--config`) and from the environment (`CORDON_` and the upper-case name), the latter
winning. An unknown name or a value out of range is an error that names the setting: a typo never becomes a default.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta

PREFIX = "CORDON_"
# Names that share the prefix and are no settings: they never belong in a configuration file.
NOT_SETTINGS: dict[str, str] = {
    "CORDON_TOKEN": "The token that commands of the command line send, where no `--token-file` is given.",
    "CORDON_KAFKA_HOME": "An unpacked Apache Kafka 4 that local brokers are started from, instead of a fetched one.",
}


class SettingsError(Exception):
    """A setting is unknown or out of its range; the message says which and what to do."""


def _int(doc: str, low: int, high: int) -> Meta:
    return Meta(description=doc, ge=low, le=high)


def _float(doc: str, low: float, high: float) -> Meta:
    return Meta(description=doc, ge=low, le=high)


def _text(doc: str) -> Meta:
    return Meta(description=doc, max_length=4096)


class Settings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The settings of one process; the descriptions are the documentation."""

    data_dir: Annotated[str, _text("Folder of the embedded log, the store, keys and tokens.")] = "cordon-data"
    lane: Annotated[str, _text("Name of this run; rollout systems obey `live` only.")] = "live"
    host: Annotated[str, _text("Address that the reports and streams listeners bind to.")] = "127.0.0.1"
    reports_port: Annotated[int, _int("Port of the listener that takes reports.", 0, 65535)] = 8400
    streams_port: Annotated[int, _int("Port of the listener for verdicts and event streams.", 0, 65535)] = 8401
    query_port: Annotated[int, _int("Port of the read-only ClickHouse HTTP endpoint on loopback.", 0, 65535)] = 8402
    store: Annotated[bool, Meta(description="Keep raw crashes, installs and aggregates in ClickHouse (chdb).")] = True
    device_partitions: Annotated[int, _int("Device partitions, fixed for the installation's life.", 1, 1024)] = 8
    keyed_partitions: Annotated[
        int, _int("Partitions of topics keyed by product or rollout, fixed for the installation's life.", 1, 256)
    ] = 1
    kafka_bootstrap: Annotated[
        str, _text("Kafka brokers, `host:port` with commas between; empty for the embedded log.")
    ] = ""
    kafka_security: Annotated[
        Literal["plaintext", "tls", "sasl_plaintext", "sasl_tls"],
        Meta(description="How brokers are spoken to; `tls` with a certificate of our own is mutual TLS."),
    ] = "plaintext"
    kafka_ca_file: Annotated[str, _text("CA certificates (PEM) that brokers are checked by; empty: the system's.")] = ""
    kafka_cert_file: Annotated[str, _text("Our certificate (PEM) for mutual TLS; empty for none.")] = ""
    kafka_key_file: Annotated[str, _text("The private key (PEM) of that certificate.")] = ""
    kafka_sasl_mechanism: Annotated[
        Literal["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"], Meta(description="SASL mechanism.")
    ] = "SCRAM-SHA-512"
    kafka_username: Annotated[str, _text("SASL user name.")] = ""
    kafka_password_file: Annotated[str, _text("File that holds the SASL password.")] = ""
    kafka_replication: Annotated[int, _int("Replicas of each topic.", 1, 9)] = 3
    kafka_min_isr: Annotated[int, _int("Replicas that must have a record before it is acknowledged.", 1, 9)] = 2
    kafka_timeout_ms: Annotated[
        int, _int("How long Kafka may take for one request before it counts as away.", 500, 120_000)
    ] = 10_000
    kafka_session_ms: Annotated[
        int, _int("How long a worker may be unheard of before its partitions go to others.", 1000, 300_000)
    ] = 8000
    kafka_transaction_ms: Annotated[
        int, _int("How long a dead writer's open transaction may hold readers up.", 1000, 900_000)
    ] = 10_000
    spool_bytes_max: Annotated[
        int, _int("Disk the gateway's spool may take while Kafka is away; 0 for no spool.", 0, 1 << 40)
    ] = 4 << 30
    spool_after_ms: Annotated[
        int, _int("How long an append to Kafka may take before reports go to the spool instead.", 50, 60_000)
    ] = 1500
    worker_name: Annotated[str, _text("This worker's name in progress words and logs.")] = "worker-1"
    worker_port: Annotated[int, _int("Port of a worker's own health and metrics page.", 0, 65535)] = 8403
    stall_seconds: Annotated[
        int, _int("How long a stage with unread records may stand still before its process ends itself.", 2, 3600)
    ] = 20
    clickhouse_host: Annotated[str, _text("ClickHouse server, native protocol; empty for chdb in process.")] = ""
    clickhouse_port: Annotated[int, _int("Its native-protocol port.", 1, 65535)] = 9000
    clickhouse_user: Annotated[str, _text("ClickHouse user.")] = "default"
    clickhouse_password_file: Annotated[str, _text("File that holds the ClickHouse password; empty for none.")] = ""
    clickhouse_tls: Annotated[bool, Meta(description="Speak TLS to ClickHouse.")] = False
    clickhouse_ca_file: Annotated[str, _text("CA certificates (PEM) for that; empty: the system's.")] = ""
    clickhouse_compression: Annotated[
        Literal["lz4", "zstd", "none"], Meta(description="Compression of inserted blocks on the wire.")
    ] = "lz4"
    clickhouse_connect_timeout_ms: Annotated[int, _int("How long connecting to ClickHouse may take.", 100, 60_000)] = (
        3000
    )
    clickhouse_timeout_ms: Annotated[
        int, _int("How long ClickHouse may be silent before a request counts as failed.", 500, 600_000)
    ] = 30_000
    clickhouse_cluster: Annotated[
        str, _text("Cluster for replicated and distributed tables; empty for one server.")
    ] = ""
    gateway_name: Annotated[str, _text("This gateway's name in ticks and batches.")] = "gateway-1"
    body_bytes_max: Annotated[int, _int("Largest body as sent.", 1024, 1 << 30)] = 4 << 20
    body_inflated_bytes_max: Annotated[int, _int("Largest body after decompression.", 1024, 1 << 30)] = 16 << 20
    reports_per_post_max: Annotated[int, _int("Most reports in one post.", 1, 100_000)] = 5000
    report_bytes_max: Annotated[int, _int("Largest single report.", 256, 1 << 20)] = 65536
    pending_reports_max: Annotated[int, _int("Reports held that the log has not taken.", 100, 10_000_000)] = 200_000
    pending_bytes_max: Annotated[
        int, _int("Bytes of posts held: being received, or not yet in the log.", 1 << 20, 1 << 36)
    ] = 256 << 20
    body_seconds_max: Annotated[int, _int("How long the body of a post may take to arrive.", 1, 600)] = 30
    linger_ms: Annotated[int, _int("How long activity waits to share a record; crashes never do.", 0, 10_000)] = 100
    tick_ms: Annotated[int, _int("How often the gateway writes its clock to each partition.", 10, 10_000)] = 250
    crash_tick_ms: Annotated[
        int,
        _int("How soon after the last tick a crash brings the next one; 0: the regular one will do.", 0, 10_000),
    ] = 100
    future_skew_ms: Annotated[int, _int("How far ahead of the gateway a device clock may be.", 0, 86_400_000)] = 120_000
    report_age_max_ms: Annotated[int, _int("How far back a report may lie.", 60_000, 31_536_000_000)] = 30 * 86_400_000
    tenant_reports_per_second_max: Annotated[
        int, _int("Reports a second a tenant may post, with a burst of ten seconds.", 1, 10_000_000)
    ] = 200_000
    device_reports_per_second_max: Annotated[
        int, _int("Reports a second a device may post, where it posts for itself.", 1, 10_000_000)
    ] = 500
    check_in_seconds: Annotated[int, _int("How often a device checks in when nothing is wrong.", 10, 86_400)] = 300
    discovered_per_tenant_max: Annotated[int, _int("Undeclared rollouts a tenant may reveal a day.", 1, 10_000)] = 20
    stream_subscribers_max: Annotated[int, _int("Open event streams.", 1, 100_000)] = 4096
    stream_queue_max: Annotated[int, _int("Events a slow subscriber may be behind before it is cut.", 1, 100_000)] = 256
    console_viewers_max: Annotated[
        int, _int("Pages of the console that may be looked at live at once; 0: no console is served.", 0, 10_000)
    ] = 200
    release_approvals: Annotated[
        int, _int("Second persons that a release of a live kill needs; 0: one operator releases alone.", 0, 1)
    ] = 1
    mute_hours_max: Annotated[int, _int("How long a mute of the detector may last.", 1, 8784)] = 24
    lease_seconds: Annotated[
        int,
        _int("How long a `proceed` stays valid; it is renewed at a third of it, while Cordon sees.", 3, 3600),
    ] = 60
    lease_verdict_seconds: Annotated[
        int, _int("How old the latest verdict of a rollout may be for a lease; one is said every minute.", 90, 3600)
    ] = 150
    lease_heard_share_least: Annotated[
        float, _float("Part of the exposed devices that must have been heard from lately for a lease.", 0.0, 1.0)
    ] = 0.4
    webhook_private_targets: Annotated[
        str,
        _text(
            "Networks inside (CIDR, with commas between) that webhooks may go to, by http as well; empty: none, and "
            "https only."
        ),
    ] = ""
    webhook_timeout_seconds: Annotated[int, _int("How long a webhook's receiver may take to answer.", 1, 60)] = 10
    webhook_retry_seconds: Annotated[
        int, _int("How long an event is posted again before it becomes a dead letter.", 60, 30 * 86_400)
    ] = 86_400
    webhook_subscriptions_max: Annotated[int, _int("Webhooks; 0 for none.", 0, 10_000)] = 2000
    routes_file: Annotated[
        str,
        _text("Registry of vendors, modules and pagers (TOML), read again when it changes; empty: nobody is paged."),
    ] = ""
    vendor_devices_least: Annotated[int, _int("Vendors are told of no group of fewer devices.", 2, 1_000_000)] = 5
    vendor_tenants_least: Annotated[int, _int("Vendors are told of no group of fewer tenants.", 2, 10_000)] = 3
    links_base: Annotated[
        str, _text("Address that links to console, boards and runbooks in pages begin with; empty for none.")
    ] = ""
    pager_calm_seconds: Annotated[
        int, _int("How long the detector's all-clear must last before a page is resolved.", 0, 3600)
    ] = 120
    pager_update_seconds: Annotated[int, _int("At most one update of an open page in this time.", 1, 86_400)] = 300
    pager_give_up_seconds: Annotated[
        int, _int("How long a page is tried before it is kept for redelivery by hand.", 60, 30 * 86_400)
    ] = 86_400
    deadman_url: Annotated[
        str, _text("Outside dead-man's switch that hears from Cordon while it sees; empty for none.")
    ] = ""
    deadman_seconds: Annotated[int, _int("How often the dead-man's switch hears from Cordon.", 1, 86_400)] = 60
    devices_max: Annotated[int, _int("Devices the fleet's state may hold.", 1000, 100_000_000)] = 20_000_000
    snapshot_seconds: Annotated[int, _int("Time for one round of fleet chunks.", 1, 3600)] = 60
    newest_schemas: Annotated[
        bool,
        Meta(
            description="Write state in the newest schema. Only once every process runs this version: until then the "
            "version before could not take over."
        ),
    ] = False
    silence_seconds: Annotated[int, _int("How long after its last word a device counts as silent.", 60, 86_400)] = 900
    blind_seconds: Annotated[int, _int("Age of the newest tick after which Cordon calls itself blind.", 1, 3600)] = 10
    lag_records_max: Annotated[
        int, _int("Records a stage may not have read before Cordon calls itself blind.", 100, 100_000_000)
    ] = 10_000
    activity_late_seconds: Annotated[int, _int("How far activity may lag before a rollout is held.", 1, 3600)] = 30
    policy_file: Annotated[str, _text("Policy file (TOML); empty for the built-in policy.")] = ""
    alerts_seconds: Annotated[
        int, _int("How often the store is asked for crash patterns that belong to no rollout; 0 for never.", 0, 86_400)
    ] = 60
    drill_hour: Annotated[
        int,
        _int(
            "Hour of the day (UTC) at which `cordon up` in one process runs its drill; -1 for none. On many machines "
            "run `cordon drill --every 24h` beside it.",
            -1,
            23,
        ),
    ] = -1
    raw_retention_days: Annotated[int, _int("How long raw crashes and installs are kept in the store.", 1, 3650)] = 30


def setting_docs() -> list[tuple[str, str, Any, str]]:
    """Return (name, environment name, default, documentation) of every setting, for the docs page and its test."""
    hints = get_type_hints(Settings, include_extras=True)
    defaults = Settings()
    return [
        (name, PREFIX + name.upper(), getattr(defaults, name), hints[name].__metadata__[0].description)
        for name in Settings.__struct_fields__
    ]


def load(environment: Mapping[str, str], config: Path | None = None, **overrides: Any) -> Settings:
    """Build the settings from a TOML file, the environment and overrides, each winning over the one before.

    Raises:
        SettingsError: an unknown name, a wrong type or a value out of range.
    """
    values: dict[str, Any] = {}
    if config is not None:
        try:
            values.update(tomllib.loads(config.read_text()))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"cannot read the configuration {config}: {error}") from error
    known = set(Settings.__struct_fields__)
    for name, text in environment.items():
        if not name.startswith(PREFIX) or name in NOT_SETTINGS:
            continue
        if name.removeprefix(PREFIX).lower() not in known:
            raise SettingsError(f"{name} is no setting of Cordon; `cordon settings` lists them")
        values[name.removeprefix(PREFIX).lower()] = text
    values.update({name: value for name, value in overrides.items() if value is not None})
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{error}; `cordon settings` lists names, ranges and defaults") from error
