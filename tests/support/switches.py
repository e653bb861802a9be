"""Builders that the kill switch's tests share: verdicts, commands, and a log with a stage under its Owner."""

from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from detectors.verdict import DecisionWord, Evidence, Reason, Verdict, VerdictWord
from ingest.clock import DrivenClock
from ingest.events import encoder
from ingest.log.interface import Entry, Record, TopicPartition
from ingest.log.memory import MemoryLog
from ingest.log.owner import Owner
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.rollouts import Bound, Ring, Rollout
from ingest.topics import Topics
from signals.events import Action, AuditEntry, Command, SwitchPlace, audit_decoder, place_decoder
from signals.killswitch.leasing import Granting
from signals.killswitch.people import Rules
from signals.killswitch.place import PLACE_PREFIX
from signals.killswitch.signing import PublicKeys, Signer
from signals.killswitch.stage import SignalsStage
from signals.killswitch.verify import VerifiedEvent, open_event, parse_envelope

ROLLOUT = "r-0123456789abcdef"
# A fixed key, for tests only: golden bytes need the same signature every time.
SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
KEYS = PublicKeys([SIGNER.public])
STRANGER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(32)))
START_MS = 1_721_621_340_000

WORDS = {
    DecisionWord.KILL: (VerdictWord.REGRESSED, Reason.KILL_EVIDENCE),
    DecisionWord.HOLD: (VerdictWord.WATCHING, Reason.HOLD_EVIDENCE),
    DecisionWord.PROCEED: (VerdictWord.HEALTHY, Reason.NO_HARM_SEEN),
    DecisionWord.UNKNOWN: (VerdictWord.NO_DATA, Reason.NO_TELEMETRY),
}


def verdict(
    decision: DecisionWord,
    *,
    word: VerdictWord | None = None,
    rollout: str = ROLLOUT,
    at_ms: int = START_MS,
    dry_run: bool = False,
) -> Verdict:
    """Return a verdict with that decision and, unless given, the verdict word that goes with it."""
    usual, reason = WORDS[decision]
    return Verdict(
        rollout=rollout,
        vendor="crowdstrike",
        product="falcon-content",
        version="291",
        at_ms=at_ms,
        verdict=word or usual,
        decision=decision,
        reason=reason,
        sentence=f"evidence 10^7.2 >= 10^6 needed to {decision.value}",
        evidence=Evidence(
            log10_evidence=7.2,
            log10_evidence_max=7.2,
            log10_needed_to_hold=3.0,
            log10_needed_to_kill=6.0,
            tolerated_ratio=1.5,
        ),
        policy="sha256:00",
        dry_run=dry_run,
    )


def command(action: Action, command_id: str, *, rollout: str = ROLLOUT, **fields: Any) -> Command:
    """Return an operator's command."""
    asked = Command(
        command_id=command_id,
        rollout=rollout,
        action=action,
        name="Ada Lovelace",
        reason="seen on three desks",
        at_ms=START_MS,
        principal="ops-1",
        roles=["operator"],
    )
    return msgspec.structs.replace(asked, **fields)


def approval(command_id: str, approves: str, *, rollout: str = ROLLOUT, **fields: Any) -> Command:
    """Return the approval of a release by a second person."""
    said = {"name": "Grace Hopper", "principal": "lead-1", "roles": ["approver"], "approves": approves}
    return command(Action.APPROVE, command_id, rollout=rollout, **(said | fields))


class SwitchRig:
    """A log in memory with a signals stage under its Owner; `restart` ends it without a word and makes another."""

    # On what terms leases are granted; None grants none.
    granting: Granting | None = None

    def __init__(self, topics: Topics | None = None, rules: Rules | None = None) -> None:
        self.topics = topics or Topics()
        self.rules = rules or Rules()
        self.clock = DrivenClock(START_MS)
        self.log = MemoryLog(topic_specs(self.topics), self.clock)
        self.metrics = Metrics()
        self.verdicts = self.source("verdicts")
        self.commands = self.source("commands")
        self.killswitch = self.source("killswitch")
        self.switches = self.source("switches")
        self.audit = self.source("audit")
        self.start()

    def source(self, word: str) -> TopicPartition:
        return TopicPartition(self.topics.name(word), 0)

    def start(self) -> None:
        self.stage = SignalsStage(
            self.log, self.topics, 0, SIGNER, KEYS, self.clock, self.metrics, self.rules, granting=self.granting
        )
        self.owner = Owner(self.log, "signals/0", "signals", self.stage, self.switches, self.clock)
        self.owner.start()

    restart = start

    def declare(self, rollout: str = ROLLOUT, *rings: str) -> None:
        declared = Rollout(
            rollout=rollout,
            vendor="crowdstrike",
            product="falcon-content",
            update_kind="content",
            version="291",
            origin_ms=START_MS,
            bound=Bound.DECLARED,
            rings=[Ring(name=ring, starts_at_ms=START_MS) for ring in rings],
        )
        self.log.append([Entry(*self.source("rollouts"), rollout.encode(), encoder.encode(declared))])

    def say(self, *verdicts: Verdict) -> None:
        self.log.append([Entry(*self.verdicts, item.rollout.encode(), encoder.encode(item)) for item in verdicts])

    def ask(self, *commands: Command) -> None:
        self.log.append([Entry(*self.commands, item.rollout.encode(), encoder.encode(item)) for item in commands])

    def settle(self) -> None:
        while self.owner.step(0):
            pass

    def records(self, source: TopicPartition) -> list[Record]:
        return self.log.read(source, 0, max_records=100_000, max_bytes=1 << 30)

    def place(self) -> SwitchPlace:
        """Return the latest place record; an empty one before the first."""
        found = [record for record in self.records(self.switches) if (record.key or b"").startswith(PLACE_PREFIX)]
        return place_decoder.decode(found[-1].value or b"") if found else SwitchPlace(offsets={}, commands=[])

    def trail(self) -> list[AuditEntry]:
        """Return the entries of the audit trail."""
        return [audit_decoder.decode(record.value or b"") for record in self.records(self.audit)]

    def events(self) -> list[VerifiedEvent]:
        return [open_event(parse_envelope(record.value or b""), KEYS) for record in self.records(self.killswitch)]
