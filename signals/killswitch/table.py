"""The table of the kill switch's state machine: where a switch may stand, what may be given, and where that leads.

The README shows it, and the moves in `machine.py` and `people.py` are made by it. Invariant: a pair that is not in the
table moves nothing.
"""

import enum

from detectors.scope import WHOLE, Scope
from detectors.verdict import DecisionWord, Verdict, VerdictWord
from signals.events import Action, Mode, SwitchState
from signals.killswitch.standing import STOPS, Standing


class Row(enum.StrEnum):
    """Where a switch, or a part, stands; a hold stands apart by who set it, because only that one may end it."""

    OBSERVING = "observing"
    WATCHING = "watching"
    HELD = "held"
    HELD_BY_PERSON = "held by a person"
    KILLED = "killed"
    RELEASED = "released"
    MUTED = "muted"
    DRY_RUN = "dry run"


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
    PERSON_MUTE = "person: mute"
    PERSON_DRY_RUN = "person: dry run"
    PERSON_ARM = "person: arm"
    END = "end"


GIVEN_DOCS: dict[Given, str] = {
    Given.CLEAR: "decision `proceed`, verdict `healthy`",
    Given.WATCH: "decision `proceed`, verdict `watching` or `regressed`",
    Given.WARY: "decision `unknown`, verdict `watching` or `regressed`",
    Given.BLIND: "decision `unknown` with any other verdict; and `proceed` with `no_data` or `error`",
    Given.HOLD: "decision `hold`; and `kill` with `no_data` or `error`",
    Given.KILL: "decision `kill`",
    Given.PERSON_HOLD: "command `hold` by an operator, with an end or without",
    Given.PERSON_KILL: "command `kill` by an operator",
    Given.PERSON_RELEASE: "command `release` by an operator; of a kill with the approval of a second person",
    Given.PERSON_MUTE: "command `mute` by an operator, with an end",
    Given.PERSON_DRY_RUN: "command `dry_run` by an operator, with an end or without",
    Given.PERSON_ARM: "command `arm` by an operator",
    Given.END: "the end of a hold, a mute or a dry run has come, by the wall clock of the signals process",
}

# A pair that is missing moves nothing.
TABLE: dict[tuple[Row, Given], Row] = {
    (Row.OBSERVING, Given.WATCH): Row.WATCHING,
    (Row.OBSERVING, Given.WARY): Row.WATCHING,
    (Row.OBSERVING, Given.HOLD): Row.HELD,
    (Row.OBSERVING, Given.KILL): Row.KILLED,
    (Row.OBSERVING, Given.PERSON_HOLD): Row.HELD_BY_PERSON,
    (Row.OBSERVING, Given.PERSON_KILL): Row.KILLED,
    (Row.OBSERVING, Given.PERSON_MUTE): Row.MUTED,
    (Row.OBSERVING, Given.PERSON_DRY_RUN): Row.DRY_RUN,
    (Row.WATCHING, Given.CLEAR): Row.OBSERVING,
    (Row.WATCHING, Given.HOLD): Row.HELD,
    (Row.WATCHING, Given.KILL): Row.KILLED,
    (Row.WATCHING, Given.PERSON_HOLD): Row.HELD_BY_PERSON,
    (Row.WATCHING, Given.PERSON_KILL): Row.KILLED,
    (Row.WATCHING, Given.PERSON_MUTE): Row.MUTED,
    (Row.WATCHING, Given.PERSON_DRY_RUN): Row.DRY_RUN,
    (Row.HELD, Given.CLEAR): Row.OBSERVING,
    (Row.HELD, Given.WATCH): Row.WATCHING,
    (Row.HELD, Given.KILL): Row.KILLED,
    (Row.HELD, Given.PERSON_HOLD): Row.HELD_BY_PERSON,
    (Row.HELD, Given.PERSON_KILL): Row.KILLED,
    (Row.HELD, Given.PERSON_RELEASE): Row.RELEASED,
    (Row.HELD, Given.PERSON_MUTE): Row.MUTED,
    (Row.HELD, Given.PERSON_DRY_RUN): Row.DRY_RUN,
    (Row.HELD_BY_PERSON, Given.KILL): Row.KILLED,
    (Row.HELD_BY_PERSON, Given.PERSON_HOLD): Row.HELD_BY_PERSON,
    (Row.HELD_BY_PERSON, Given.PERSON_KILL): Row.KILLED,
    (Row.HELD_BY_PERSON, Given.PERSON_RELEASE): Row.RELEASED,
    (Row.HELD_BY_PERSON, Given.PERSON_MUTE): Row.HELD_BY_PERSON,
    (Row.HELD_BY_PERSON, Given.PERSON_DRY_RUN): Row.HELD_BY_PERSON,
    (Row.HELD_BY_PERSON, Given.PERSON_ARM): Row.HELD_BY_PERSON,
    (Row.HELD_BY_PERSON, Given.END): Row.OBSERVING,
    (Row.KILLED, Given.PERSON_RELEASE): Row.RELEASED,
    (Row.KILLED, Given.PERSON_ARM): Row.KILLED,
    # Only where no kill was released: then the detector is out for good.
    (Row.RELEASED, Given.KILL): Row.KILLED,
    (Row.RELEASED, Given.PERSON_HOLD): Row.HELD_BY_PERSON,
    (Row.RELEASED, Given.PERSON_KILL): Row.KILLED,
    (Row.MUTED, Given.PERSON_HOLD): Row.HELD_BY_PERSON,
    (Row.MUTED, Given.PERSON_KILL): Row.KILLED,
    (Row.MUTED, Given.PERSON_MUTE): Row.MUTED,
    (Row.MUTED, Given.PERSON_DRY_RUN): Row.DRY_RUN,
    (Row.MUTED, Given.PERSON_ARM): Row.OBSERVING,
    (Row.MUTED, Given.END): Row.OBSERVING,
    (Row.DRY_RUN, Given.PERSON_HOLD): Row.HELD_BY_PERSON,
    (Row.DRY_RUN, Given.PERSON_KILL): Row.KILLED,
    (Row.DRY_RUN, Given.PERSON_MUTE): Row.MUTED,
    (Row.DRY_RUN, Given.PERSON_DRY_RUN): Row.DRY_RUN,
    (Row.DRY_RUN, Given.PERSON_ARM): Row.OBSERVING,
    (Row.DRY_RUN, Given.END): Row.OBSERVING,
}

GIVEN_OF_ACTION: dict[Action, Given] = {
    Action.HOLD: Given.PERSON_HOLD,
    Action.KILL: Given.PERSON_KILL,
    Action.RELEASE: Given.PERSON_RELEASE,
    Action.MUTE: Given.PERSON_MUTE,
    Action.DRY_RUN: Given.PERSON_DRY_RUN,
    Action.ARM: Given.PERSON_ARM,
}
STATE_OF_ROW = {
    Row.OBSERVING: SwitchState.OBSERVING,
    Row.WATCHING: SwitchState.WATCHING,
    Row.HELD: SwitchState.HELD,
    Row.HELD_BY_PERSON: SwitchState.HELD,
    Row.KILLED: SwitchState.KILLED,
    Row.RELEASED: SwitchState.RELEASED,
    Row.MUTED: SwitchState.MUTED,
    Row.DRY_RUN: SwitchState.OBSERVING,
}
BLIND_VERDICTS = frozenset({VerdictWord.NO_DATA, VerdictWord.ERROR})
LIFTS = frozenset({Given.CLEAR, Given.WATCH})
MODES = {Action.MUTE: Mode.MUTED, Action.DRY_RUN: Mode.DRY_RUN, Action.ARM: Mode.LIVE}


def given_of(verdict: Verdict) -> Given:
    """Return the column of the table that a verdict falls under."""
    blind = verdict.verdict in BLIND_VERDICTS
    if verdict.decision is DecisionWord.KILL:
        return Given.HOLD if blind else Given.KILL
    if verdict.decision is DecisionWord.HOLD:
        return Given.HOLD
    if blind:
        return Given.BLIND
    if verdict.decision is DecisionWord.UNKNOWN:
        return Given.BLIND if verdict.verdict is VerdictWord.HEALTHY else Given.WARY
    return Given.CLEAR if verdict.verdict is VerdictWord.HEALTHY else Given.WATCH


def row_of(standing: Standing, scope: Scope = WHOLE, *, dry: bool = False) -> Row:
    """Return the row of the table that the whole or a part stands in.

    Args:
        standing: of the rollout.
        scope: the part.
        dry: as the detector's words in dry run see it: a dry stop counts, the mode does not.
    """
    stop = standing.stop_of(scope, dry=dry)
    if stop is not None and stop.state is SwitchState.HELD:
        return Row.HELD_BY_PERSON if stop.by == "person" else Row.HELD
    state = standing.state_of(scope, dry=dry)
    if scope.whole and not dry and standing.mode is Mode.DRY_RUN and state not in STOPS:
        return Row.DRY_RUN
    return Row(state.value)


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
