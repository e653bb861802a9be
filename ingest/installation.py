"""Facts that all processes of an installation must agree on, kept in `cordon.installation.v1`.

A gateway with another pseudonym key would turn every device into a stranger; a worker with another partition count
would count wrong. The invariant: a fact is written once, under a fence, and whoever was told otherwise does not start.
"""

from collections.abc import Callable, Mapping

import msgspec

from ingest.clock import Clock
from ingest.events import SCHEMA_WRITTEN, UNREADABLE_ERRORS, encoder
from ingest.log.interface import Entry, FencedError, Log, TopicPartition
from ingest.topics import Topics

FENCE = "installation"
TRIES_MAX = 10


class Fact(msgspec.Struct, kw_only=True, tag_field="kind", tag="fact"):
    """One record of `cordon.installation.v1`, keyed by `name`.

    Attributes:
        name: what is said, for instance `pseudonym_key`.
        value: of a secret only its fingerprint.
        set_by: a word of the process that said it first, for people.
        at_ms: its wall clock.
    """

    schema: int = SCHEMA_WRITTEN
    name: str
    value: str
    set_by: str
    at_ms: int


fact_decoder = msgspec.json.Decoder(Fact)


class DisagreementError(Exception):
    """This process was told otherwise than the installation; the message says what to do."""


Accept = Callable[[str], bool]


def agree(
    log: Log,
    topics: Topics,
    facts: Mapping[str, str],
    who: str,
    clock: Clock,
    remedies: Mapping[str, str],
    replaces: Mapping[str, Accept] | None = None,
) -> None:
    """Return if this process and the installation agree; what the installation does not say yet, it says from now on.

    Args:
        log: of the installation.
        topics: the lane's.
        facts: what this process was told, by name.
        who: of this process, for people.
        clock: stamps facts.
        remedies: by name, what to do where they differ.
        replaces: by name, whether a differing earlier value may be replaced by this process's (a key that was rotated).

    Raises:
        DisagreementError: they differ.
        LogError: the log can't be read or written.
    """
    for _ in range(TRIES_MAX):
        missing = _missing(log, topics, facts, remedies, replaces or {})
        if not missing:
            return
        fence = log.claim(FENCE)
        # Read again: whoever had the claim before may have written meanwhile, and can't any more.
        missing = _missing(log, topics, facts, remedies, replaces or {})
        try:
            log.append([_entry(topics, name, facts[name], who, clock) for name in missing], fence)
        except FencedError:
            continue
        return
    raise DisagreementError(f"{TRIES_MAX} other processes started at the same time: start this one again")


def facts_in(log: Log, topics: Topics) -> dict[str, Fact]:
    """Return the latest of each fact."""
    source = TopicPartition(topics.name("installation"), 0)
    offset, end = log.bounds(source)
    found: dict[str, Fact] = {}
    while offset < end and (records := log.read(source, offset)):
        for record in records:
            if record.value is None:
                continue
            try:
                fact = fact_decoder.decode(record.value)
            except UNREADABLE_ERRORS as error:
                raise DisagreementError(f"offset {record.offset} of {source.topic} holds no fact: {error}") from error
            found[fact.name] = fact
        offset = records[-1].offset + 1
    return found


def _missing(
    log: Log, topics: Topics, facts: Mapping[str, str], remedies: Mapping[str, str], replaces: Mapping[str, Accept]
) -> list[str]:
    known = facts_in(log, topics)
    missing = []
    for name, value in facts.items():
        fact = known.get(name)
        if fact is not None and fact.value == value:
            continue
        if fact is None or (name in replaces and replaces[name](fact.value)):
            missing.append(name)
            continue
        raise DisagreementError(
            f"{name} is {value} here, but this installation's is {fact.value} (set by {fact.set_by}): {remedies[name]}"
        )
    return missing


def _entry(topics: Topics, name: str, value: str, who: str, clock: Clock) -> Entry:
    fact = Fact(name=name, value=value, set_by=who, at_ms=clock.now_ms())
    return Entry(topics.name("installation"), 0, name.encode(), encoder.encode(fact))
