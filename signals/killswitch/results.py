"""What becomes of a person's command, as closed words: in the answer, the metric's label and the audit trail.

Invariant: a command that changed nothing always says why.
"""

import enum


class CommandResult(enum.StrEnum):
    """What became of a person's command."""

    APPLIED = "applied"
    PENDING = "pending"
    ALREADY_HELD = "already_held"
    ALREADY_KILLED = "already_killed"
    ALREADY_MUTED = "already_muted"
    ALREADY_DRY = "already_dry"
    ALREADY_ARMED = "already_armed"
    ALREADY_PENDING = "already_pending"
    NOTHING_TO_RELEASE = "nothing_to_release"
    RELEASE_FIRST = "release_first"
    DISARMED = "disarmed"
    NEEDS_END = "needs_end"
    TOO_LONG = "too_long"
    TOO_LATE = "too_late"
    TAKES_NO_END = "takes_no_end"
    WHOLE_ONLY = "whole_only"
    TOO_MANY_PARTS = "too_many_parts"
    TOO_MANY_PENDING = "too_many_pending"
    NO_SUCH_REQUEST = "no_such_request"
    SAME_PERSON = "same_person"
    NOT_ALLOWED = "not_allowed"
    UNKNOWN_ROLLOUT = "unknown_rollout"


COMMAND_RESULT_DOCS: dict[CommandResult, str] = {
    CommandResult.APPLIED: "The switch moved, and an event says so.",
    CommandResult.PENDING: "A release of a kill waits for a second person, who approves it by its command id.",
    CommandResult.ALREADY_HELD: "Nothing changed: it is held already, until then or longer.",
    CommandResult.ALREADY_KILLED: "Nothing changed: it is killed, and only a release undoes that.",
    CommandResult.ALREADY_MUTED: "Nothing changed: it is muted until just then.",
    CommandResult.ALREADY_DRY: "Nothing changed: it is in dry run until just then.",
    CommandResult.ALREADY_ARMED: "Nothing changed: the detector's word binds already.",
    CommandResult.ALREADY_PENDING: "Nothing changed: a release of the same waits for its approval.",
    CommandResult.NOTHING_TO_RELEASE: (
        "Nothing changed: just this, the whole or that part, is neither held nor killed. A part is not released from a "
        "stop of the whole, nor the parts of a rollout whose whole goes on."
    ),
    CommandResult.RELEASE_FIRST: "Nothing changed: a kill stands, and a mute or a dry run would lift it. Release it.",
    CommandResult.DISARMED: (
        "Nothing changed: a person has released the rollout; the detector can only kill it now, or is out for good."
    ),
    CommandResult.NEEDS_END: "Nothing changed: a mute needs an end.",
    CommandResult.TOO_LONG: "Nothing changed: it would last longer than `mute_hours_max`.",
    CommandResult.TOO_LATE: "Nothing changed: the end had passed when the switch saw the command.",
    CommandResult.TAKES_NO_END: "Nothing changed: only a hold, a mute or a dry run can end by itself.",
    CommandResult.WHOLE_ONLY: "Nothing changed: mute, dry run and arm are for the whole rollout.",
    CommandResult.TOO_MANY_PARTS: "Nothing changed: 64 parts are stopped or released already. Stop the whole.",
    CommandResult.TOO_MANY_PENDING: "Nothing changed: too many releases wait for approval.",
    CommandResult.NO_SUCH_REQUEST: (
        "Nothing changed: no release of that id waits on that rollout. It has expired, or a stop came or went since."
    ),
    CommandResult.SAME_PERSON: "Nothing changed: the approval has to come from another token than the request.",
    CommandResult.NOT_ALLOWED: "Nothing changed: the command does not name a token with the role that it needs.",
    CommandResult.UNKNOWN_ROLLOUT: "No rollout of that id is known; nothing was signed.",
}
