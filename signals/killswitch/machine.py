"""The kill switch's state machine, as a pure function over a table.

It stands between a verdict or a person's command and the signed event: `advance` says whether the switch moves, and
everything else (numbering, signing, writing) follows from that. Invariants: a live kill latches and only a person's
release leaves it; after a release the detector never moves the switch again; the same input twice moves it once; and
what is unknown never lifts a stop and never makes one worse.
"""

import enum
from dataclasses import dataclass
from typing import Literal

from detectors.verdict import DecisionWord, Verdict, VerdictWord
from signals.events import Action, Command, Switch, SwitchState

Cause = Literal["detector", "person", "timer"]


class Row(enum.StrEnum):
    """Where a switch stands; a hold stands apart by who set it, because only that one may end it."""

    OBSERVING = "observing"
    WATCHING = "watching"
    HELD = "held"
    HELD_BY_PERSON = "held by a person"
    KILLED = "killed"
    RELEASED = "released"


class Given(enum.StrEnum):
    """What an input asks for: the columns of the table."""

    CLEAR = "clear"
    WATCH = "watch"
    WARY = "wary"
    BLIND = "blind"
    HOLD = "hold"
    KILL = "kill"
    PERSON_HOLD = "person: hold"
    PERSON_KILL = "person: kill"
    PERSON_RELEASE = "person: release"


GIVEN_DOCS: dict[Given, str] = {
    Given.CLEAR: "decision `proceed`, verdict `healthy`",
    Given.WATCH: "decision `proceed`, verdict `watching` or `regressed`",
    Given.WARY: "decision `unknown`, verdict `watching` or `regressed`",
    Given.BLIND: "decision `unknown` with any other verdict; and `proceed` with `no_data` or `error`",
    Given.HOLD: "decision `hold`; and `kill` with `no_data` or `error`",
    Given.KILL: "decision `kill`",
    Given.PERSON_HOLD: "command `hold`",
    Given.PERSON_KILL: "command `kill`",
    Given.PERSON_RELEASE: "command `release`",
}

# A pair that is missing moves nothing.
TABLE: dict[tuple[Row, Given], Row] = {
    (Row.OBSERVING, Given.WATCH): Row.WATCHING,
    (Row.OBSERVING, Given.WARY): Row.WATCHING,
    (Row.OBSERVING, Given.HOLD): Row.HELD,
    (Row.OBSERVING, Given.KILL): Row.KILLED,
    (Row.OBSERVING, Given.PERSON_HOLD): Row.HELD_BY_PERSON,
    (Row.OBSERVING, Given.PERSON_KILL): Row.KILLED,
    (Row.WATCHING, Given.CLEAR): Row.OBSERVING,
    (Row.WATCHING, Given.HOLD): Row.HELD,
    (Row.WATCHING, Given.KILL): Row.KILLED,
    (Row.WATCHING, Given.PERSON_HOLD): Row.HELD_BY_PERSON,
    (Row.WATCHING, Given.PERSON_KILL): Row.KILLED,
    (Row.HELD, Given.CLEAR): Row.OBSERVING,
    (Row.HELD, Given.WATCH): Row.WATCHING,
    (Row.HELD, Given.KILL): Row.KILLED,
    (Row.HELD, Given.PERSON_HOLD): Row.HELD_BY_PERSON,
    (Row.HELD, Given.PERSON_KILL): Row.KILLED,
    (Row.HELD, Given.PERSON_RELEASE): Row.RELEASED,
    (Row.HELD_BY_PERSON, Given.KILL): Row.KILLED,
    (Row.HELD_BY_PERSON, Given.PERSON_KILL): Row.KILLED,
    (Row.HELD_BY_PERSON, Given.PERSON_RELEASE): Row.RELEASED,
    (Row.KILLED, Given.PERSON_RELEASE): Row.RELEASED,
    (Row.RELEASED, Given.PERSON_HOLD): Row.HELD_BY_PERSON,
    (Row.RELEASED, Given.PERSON_KILL): Row.KILLED,
}

_GIVEN_OF_ACTION = {
    Action.HOLD: Given.PERSON_HOLD,
    Action.KILL: Given.PERSON_KILL,
    Action.RELEASE: Given.PERSON_RELEASE,
}
_STATE_OF_ROW = {
    Row.OBSERVING: SwitchState.OBSERVING,
    Row.WATCHING: SwitchState.WATCHING,
    Row.HELD: SwitchState.HELD,
    Row.HELD_BY_PERSON: SwitchState.HELD,
    Row.KILLED: SwitchState.KILLED,
    Row.RELEASED: SwitchState.RELEASED,
}
_DECISION_OF_STATE = {
    SwitchState.OBSERVING: DecisionWord.PROCEED,
    SwitchState.HELD: DecisionWord.HOLD,
    SwitchState.KILLED: DecisionWord.KILL,
    SwitchState.RELEASED: DecisionWord.PROCEED,
}
_BLIND_VERDICTS = frozenset({VerdictWord.NO_DATA, VerdictWord.ERROR})
_STOPS = frozenset({SwitchState.HELD, SwitchState.KILLED})


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one rollout's switch stands: everything its last event says, and nothing else.

    Attributes:
        cause: who moved it last.
        dry_run: the last event binds nobody.
        armed: the detector may still move it.
        watermark_ms: event time of the verdict that moved it last; 0 if a person did.
        number: of the last event; 0 before the first.
        digest: SHA-256 of the last event's payload, hexadecimal; empty before the first.
    """

    state: SwitchState = SwitchState.OBSERVING
    cause: Cause = "detector"
    dry_run: bool = False
    armed: bool = True
    watermark_ms: int = 0
    number: int = 0
    digest: str = ""

    @property
    def row(self) -> Row:
        """Return the row of the table."""
        if self.state is SwitchState.HELD and self.cause == "person":
            return Row.HELD_BY_PERSON
        return Row(self.state.value)

    @property
    def stops(self) -> bool:
        """Tell whether rollout systems must stop now."""
        return self.state in _STOPS and not self.dry_run


@dataclass(frozen=True, slots=True)
class Transition:
    """One move of a switch; it makes one event."""

    previous_state: SwitchState
    state: SwitchState
    decision: DecisionWord
    cause: Cause
    dry_run: bool
    armed: bool


class CommandResult(enum.StrEnum):
    """What became of a person's command."""

    APPLIED = "applied"
    ALREADY_HELD = "already_held"
    ALREADY_KILLED = "already_killed"
    NOTHING_TO_RELEASE = "nothing_to_release"
    UNKNOWN_ROLLOUT = "unknown_rollout"


COMMAND_RESULT_DOCS: dict[CommandResult, str] = {
    CommandResult.APPLIED: "The switch moved, and an event says so.",
    CommandResult.ALREADY_HELD: "Nothing changed: the rollout is held already.",
    CommandResult.ALREADY_KILLED: "Nothing changed: the rollout is killed, and only a release undoes that.",
    CommandResult.NOTHING_TO_RELEASE: "Nothing changed: the rollout is neither held nor killed.",
    CommandResult.UNKNOWN_ROLLOUT: "No rollout of that id is known; nothing was signed.",
}


def given_of(asked: Verdict | Command) -> Given:
    """Return the column of the table that a verdict or command falls under."""
    if isinstance(asked, Command):
        return _GIVEN_OF_ACTION[asked.action]
    blind = asked.verdict in _BLIND_VERDICTS
    if asked.decision is DecisionWord.KILL:
        return Given.HOLD if blind else Given.KILL
    if asked.decision is DecisionWord.HOLD:
        return Given.HOLD
    if blind:
        return Given.BLIND
    if asked.decision is DecisionWord.UNKNOWN:
        return Given.BLIND if asked.verdict is VerdictWord.HEALTHY else Given.WARY
    return Given.CLEAR if asked.verdict is VerdictWord.HEALTHY else Given.WATCH


def advance(standing: Standing, asked: Verdict | Command) -> Transition | None:
    """Return how `asked` moves a switch that stands at `standing`, or None where it moves nothing."""
    if isinstance(asked, Command) and asked.action not in _GIVEN_OF_ACTION:
        return None
    given = given_of(asked)
    if isinstance(asked, Command):
        return _by_person(standing, given)
    return _by_detector(standing, given, asked)


def _by_person(standing: Standing, given: Given) -> Transition | None:
    row = standing.row
    if standing.dry_run and given is not Given.PERSON_RELEASE:
        # A dry-run stop binds nobody: a person's stop has to be made as if there were none.
        row = Row.OBSERVING
    target = TABLE.get((row, given))
    if target is None:
        return None
    state = _STATE_OF_ROW[target]
    return Transition(
        previous_state=standing.state,
        state=state,
        decision=_DECISION_OF_STATE[state],
        cause="person",
        dry_run=False,
        armed=standing.armed and state is not SwitchState.RELEASED,
    )


def _by_detector(standing: Standing, given: Given, verdict: Verdict) -> Transition | None:
    if not standing.armed:
        return None
    if verdict.at_ms < standing.watermark_ms and given is not Given.KILL:
        # Told again, out of turn: a newer verdict has already been obeyed. A kill is never too old.
        return None
    dry_run = verdict.dry_run
    if dry_run and standing.stops:
        # A live stop is lifted by a live event, or those who obeyed it would wait for ever; and dry-run adds no stop.
        if given not in (Given.CLEAR, Given.WATCH):
            return None
        dry_run = False
    row = Row.OBSERVING if standing.dry_run and not dry_run else standing.row
    target = TABLE.get((row, given))
    if target is None:
        return None
    state = _STATE_OF_ROW[target]
    return Transition(
        previous_state=standing.state,
        state=state,
        decision=_DECISION_OF_STATE.get(state, verdict.decision),
        cause="detector",
        dry_run=dry_run,
        armed=True,
    )


def refusal(standing: Standing, command: Command) -> CommandResult:
    """Say why a command moved nothing."""
    if command.action is Action.RELEASE:
        return CommandResult.NOTHING_TO_RELEASE
    return CommandResult.ALREADY_KILLED if standing.state is SwitchState.KILLED else CommandResult.ALREADY_HELD


def standing_after(switch: Switch, digest: str) -> Standing:
    """Return where a switch stands after the event whose data is `switch`."""
    return Standing(
        state=switch.state,
        cause=switch.cause,
        dry_run=switch.dry_run,
        armed=switch.armed,
        watermark_ms=switch.watermark_ms,
        number=switch.number,
        digest=digest,
    )


def table_markdown() -> str:
    """Return the table as the README shows it."""
    lines = [
        "| from \\ given | " + " | ".join(given.value for given in Given) + " |",
        "| --- " * (len(Given) + 1) + "|",
    ]
    for row in Row:
        cells = [f"**{TABLE[row, given].value}**" if (row, given) in TABLE else "·" for given in Given]
        lines.append(f"| {row.value} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
