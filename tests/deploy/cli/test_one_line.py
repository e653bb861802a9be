"""What commands print of events and of the trail: one line each, whatever stands in a sentence or a name."""

import pytest

from deploy.cli.streams import event_line, one_line
from signals.events import Action
from support.switches import ROLLOUT, SwitchRig, command


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\u202eoff", r"\u202eoff"),
        ("Grüße, 東京 10^6", "Grüße, 東京 10^6"),
    ],
)
def test_what_moves_the_cursor_is_escaped_and_all_else_is_shown(text: str, shown: str) -> None:
    assert one_line(text) == shown


def test_an_event_is_one_line() -> None:
    rig = SwitchRig()
    rig.declare()
    # As a release wrote it that did not yet refuse such words.
    rig.ask(command(Action.HOLD, "c-1", reason=f"odd\nPROCEED {ROLLOUT}/2 by Ada"))
    rig.settle()
    [event] = rig.events()
    assert "\n" in event.switch.sentence
    assert len(event_line(event.switch).splitlines()) == 1
