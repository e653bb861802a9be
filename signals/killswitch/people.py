"""How people move a kill switch: who may ask for what, until when, and which release needs a second person.

`ruling` is what the stage asks for every command: a pure function over where the switch stands and what waits for
approval. Invariants: a live kill is released by two different principals, or by one who breaks the glass and is heard;
holding and killing need one; and a command that moves nothing gets a word that says why.
"""

from dataclasses import dataclass, replace
from typing import Final

import msgspec

from detectors.scope import WHOLE
from detectors.verdict import DecisionWord
from ingest.settings import Settings
from signals.events import Action, Command, Mode, PendingRelease, SwitchState
from signals.killswitch.approvals import Approvals
from signals.killswitch.machine import Transition, in_mode
from signals.killswitch.results import CommandResult
from signals.killswitch.standing import STOPS, Standing, Stop, decision_of
from signals.killswitch.table import GIVEN_OF_ACTION, MODES, STATE_OF_ROW, TABLE, Row, row_of

# Beyond that a hold is meant to have no end.
HOLD_DAYS_MAX: Final = 366
_ALREADY = {
    Mode.LIVE: CommandResult.ALREADY_ARMED,
    Mode.MUTED: CommandResult.ALREADY_MUTED,
    Mode.DRY_RUN: CommandResult.ALREADY_DRY,
}
_WITH_END = frozenset({Action.HOLD, Action.MUTE, Action.DRY_RUN})
_STOPPING = frozenset({Action.HOLD, Action.KILL})


@dataclass(frozen=True, slots=True)
class Rules:
    """What policy says of people.

    Attributes:
        release_approvals: persons beside the one who asks that a release of a live kill needs: 0 or 1.
        mute_hours_max: how long a mute may last.
    """

    release_approvals: int = 1
    mute_hours_max: int = 24

    @classmethod
    def by(cls, settings: Settings) -> "Rules":
        """Return what the settings say."""
        return cls(settings.release_approvals, settings.mute_hours_max)


@dataclass(frozen=True, slots=True)
class Ruling:
    """What becomes of a command.

    Attributes:
        result: the closed word.
        transition: how the switch moves, where it does.
        request: the release that waits from now on, or that is approved by this command.
        broke_glass: a release that needed a second person was made without one.
    """

    result: CommandResult
    transition: Transition | None = None
    request: PendingRelease | None = None
    broke_glass: bool = False


def ruling(command: Command, standing: Standing, approvals: Approvals, rules: Rules, now_ms: int) -> Ruling:
    """Return what becomes of a command on a switch that stands so at `now_ms`."""
    refused = _not_admitted(command, rules, now_ms)
    if refused is not None:
        return Ruling(refused)
    if command.action is Action.APPROVE:
        return _approval(command, standing, approvals, now_ms)
    moved = by_person(standing, command)
    if isinstance(moved, CommandResult):
        return Ruling(moved)
    needs_second = _needs_second(command, standing, rules)
    if needs_second and not command.break_glass:
        return _request(command, approvals, now_ms)
    return Ruling(CommandResult.APPLIED, moved, broke_glass=needs_second)


def _not_admitted(command: Command, rules: Rules, now_ms: int) -> CommandResult | None:
    needed = "approver" if command.action is Action.APPROVE else "operator"
    # A stop asked for through a gateway of an earlier release names no token; one that loosens must.
    unsaid = not command.roles and command.action in _STOPPING
    if not unsaid and (needed not in command.roles or not command.principal):
        return CommandResult.NOT_ALLOWED
    if not command.scope.whole and command.action in MODES:
        return CommandResult.WHOLE_ONLY
    if not command.until_ms:
        return CommandResult.NEEDS_END if command.action is Action.MUTE else None
    if command.action not in _WITH_END:
        return CommandResult.TAKES_NO_END
    if command.until_ms <= now_ms:
        return CommandResult.TOO_LATE
    hours_max = rules.mute_hours_max if command.action is Action.MUTE else HOLD_DAYS_MAX * 24
    return CommandResult.TOO_LONG if command.until_ms > now_ms + hours_max * 3_600_000 else None


def _needs_second(command: Command, standing: Standing, rules: Rules) -> bool:
    if command.action is not Action.RELEASE or rules.release_approvals == 0:
        return False
    if command.scope.whole:
        return standing.killed
    stop = standing.stop_of(command.scope)
    return stop is not None and stop.state is SwitchState.KILLED


def _request(command: Command, approvals: Approvals, now_ms: int) -> Ruling:
    if approvals.waiting(command.rollout, command.scope):
        return Ruling(CommandResult.ALREADY_PENDING)
    if approvals.full:
        return Ruling(CommandResult.TOO_MANY_PENDING)
    return Ruling(CommandResult.PENDING, request=approvals.request_of(command, now_ms))


def _approval(command: Command, standing: Standing, approvals: Approvals, now_ms: int) -> Ruling:
    request = approvals.find(command.rollout, command.approves)
    if request is None or request.expires_ms <= now_ms:
        return Ruling(CommandResult.NO_SUCH_REQUEST)
    if request.principal == command.principal:
        return Ruling(CommandResult.SAME_PERSON)
    moved = by_person(standing, msgspec.structs.replace(command, action=Action.RELEASE, scope=request.scope))
    if isinstance(moved, CommandResult):
        return Ruling(moved)
    return Ruling(CommandResult.APPLIED, moved, request)


def by_person(standing: Standing, command: Command) -> Transition | CommandResult:
    """Return how a command moves the switch, or the word for why it moves nothing.

    Who may ask, and whether a second person is needed, `ruling` decides.
    """
    if command.action in MODES:
        return _mode_by_person(standing, command, MODES[command.action])
    scope = command.scope
    row = _row_for_person(standing, command)
    target = TABLE.get((row, GIVEN_OF_ACTION[command.action]))
    stop = standing.stop_of(scope)
    if target is None or (not scope.whole and standing.state is SwitchState.KILLED and target is not Row.RELEASED):
        return _refusal(command, row if target is None else Row.KILLED)
    if target is Row.HELD_BY_PERSON and row is target and stop is not None and not _later(command.until_ms, stop):
        return CommandResult.ALREADY_HELD
    if not standing.room_for(scope):
        return CommandResult.TOO_MANY_PARTS
    state = STATE_OF_ROW[target]
    after = _after_person(standing, command, state, beneath=row is Row.HELD or bool(stop and stop.beneath))
    return Transition(scope, standing.state_of(scope), state, "person", after, until_ms=command.until_ms)


def _row_for_person(standing: Standing, command: Command) -> Row:
    row = row_of(standing, command.scope)
    if command.action is Action.RELEASE and not standing.stops and command.scope in standing.dry and standing.armed:
        # A person may release a stop that binds nobody: of a kill, the detector is then out for good.
        return row_of(standing, command.scope, dry=True)
    return row


def _after_person(standing: Standing, command: Command, state: SwitchState, *, beneath: bool) -> Standing:
    number, scope = standing.number + 1, command.scope
    stop = None
    if state in STOPS:
        held = state is SwitchState.HELD
        stop = Stop(state, "person", number, command.until_ms if held else 0, held and beneath)
    after = replace(standing, number=number, watermark_ms=0)
    if not scope.whole:
        after = after.with_part(scope, stop).with_part(scope, None, dry=True)
        return after if stop is not None else replace(after, released=after.released | {scope})
    after = replace(after, state=state, decision=decision_of(state, DecisionWord.UNKNOWN), stop=stop)
    if stop is not None:
        return after.with_part(WHOLE, None, dry=True)
    # The whole is released: whatever stopped a part of it is released with it.
    after = replace(after, parts={}, dry={})
    if not _releases_kill(standing):
        # A hold was overruled, or was a person's own: that says nothing against a kill to come.
        return after
    return replace(after, released=frozenset(), armed=False, mode=Mode.LIVE, mode_until_ms=0)


def _releases_kill(standing: Standing) -> bool:
    shadow = standing.dry.get(WHOLE)
    shadowed = not standing.stops and shadow is not None and shadow.state is SwitchState.KILLED
    return standing.killed or shadowed


def _mode_by_person(standing: Standing, command: Command, mode: Mode) -> Transition | CommandResult:
    if not standing.armed or (standing.state is SwitchState.RELEASED and mode is not Mode.LIVE):
        return CommandResult.DISARMED
    if mode is not Mode.LIVE and standing.killed:
        return CommandResult.RELEASE_FIRST
    if standing.mode is mode and (mode is Mode.LIVE or standing.mode_until_ms == command.until_ms):
        return _ALREADY[mode]
    after = in_mode(standing, mode, command.until_ms)
    return Transition(WHOLE, standing.state, after.state, "person", after, until_ms=command.until_ms)


def _later(until_ms: int, stop: Stop) -> bool:
    """Tell whether a hold until then outlasts the one that stands; 0 is for ever."""
    return stop.until_ms != 0 and (until_ms == 0 or until_ms > stop.until_ms)


def _refusal(command: Command, row: Row) -> CommandResult:
    if command.action is Action.RELEASE:
        return CommandResult.NOTHING_TO_RELEASE
    return CommandResult.ALREADY_KILLED if row is Row.KILLED else CommandResult.ALREADY_HELD
