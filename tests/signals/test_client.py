"""The subscriber's client against servers that lie, stumble and die."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from detectors.verdict import DecisionWord
from ingest.topics import Topics
from signals.client import ClientError, KillSwitchClient, PublicKeys
from signals.killswitch.signing import BadSignatureError, MalformedEventError, SwitchError, UnknownKeyError
from signals.killswitch.verify import NumberGapError, TwoDecisionsError, VerifiedEvent, WrongLaneError
from support.streams import eventually
from support.switches import KEYS, START_MS, STRANGER, SwitchRig, verdict


def wire(rig: SwitchRig, count: int) -> list[bytes]:
    """Return `count` envelopes of one rollout as the log holds them."""
    words = (DecisionWord.HOLD, DecisionWord.PROCEED)
    rig.say(*(verdict(words[n % 2], at_ms=START_MS + n) for n in range(count)))
    rig.settle()
    return [record.value or b"" for record in rig.records(rig.killswitch)]


def event(data: bytes, place: int) -> bytes:
    return b"id: 0:%d\nevent: killswitch\ndata: %s\n\n" % (place, data)


@contextmanager
def serving(
    *connections: bytes | int, hang: bool = False, pages: int = 0
) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Serve one answer a connection (bytes of a stream, or a status), the last for all later ones.

    The first so many `pages` are none of them: a proxy's page, with a status of 200.
    """
    asked: list[dict[str, str]] = []
    ending = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = len(asked) < pages
            answer = connections[min(len(asked), len(connections) - 1)]
            asked.append({name.lower(): value for name, value in self.headers.items()} | {"path": self.path})
            self.send_response(answer if isinstance(answer, int) else 200)
            self.send_header("content-type", "text/html" if page else "text/event-stream")
            self.send_header("connection", "close")
            self.end_headers()
            if isinstance(answer, bytes):
                self.wfile.write(answer)
                self.wfile.flush()
                if hang:
                    ending.wait(10)
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        ending.set()
        server.shutdown()
        thread.join(10)
        server.server_close()


def numbers(url: str, most: int, keys: PublicKeys = KEYS) -> list[int]:
    with KillSwitchClient(url, keys, connects_max=3) as client:
        found: list[VerifiedEvent] = []
        for verified in client.verified():
            found.append(verified)
            if len(found) == most:
                break
        return [verified.switch.number for verified in found]


def test_a_broken_connection_is_resumed_from_the_last_event() -> None:
    sent = wire(SwitchRig(), 4)
    first = b"retry: 1\nid: 0:0\n\n" + event(sent[0], 1) + event(sent[1], 2) + b"id: 0:3\nevent: killswitch\nda"
    with serving(first, event(sent[2], 3) + event(sent[3], 4)) as (url, asked):
        assert numbers(url, 4) == [1, 2, 3, 4]
    assert "last-event-id" not in asked[0]
    # What came in part was no event: the place is that of the last whole one.
    assert asked[1]["last-event-id"] == "0:2"


def test_the_stream_may_be_cut_into_lines_in_every_way_that_the_standard_knows() -> None:
    sent = wire(SwitchRig(), 2)
    # JSON may hold a line break between its parts, and nowhere else: break at a comma between members.
    half = sent[0].index(b',"signatures"') + 1
    stream = (
        b"\xef\xbb\xbf: a comment\r\nretry: 1\r\nid: 0:0\r\n\r\n"
        + b"id: 0:1\revent: killswitch\rdata: %s\rdata:%s\r\r" % (sent[0][:half], sent[0][half:])
        + b"unknown: field\nevent: other\ndata: ignored\n\n"
        + event(sent[1], 2)
    )
    with serving(stream) as (url, _):
        assert numbers(url, 2) == [1, 2]


def test_what_comes_twice_is_told_once() -> None:
    sent = wire(SwitchRig(), 3)
    stream = b"".join(event(sent[n], place) for place, n in enumerate([0, 0, 1, 0, 1, 2], 1))
    with serving(stream) as (url, _):
        assert numbers(url, 3) == [1, 2, 3]


@pytest.mark.parametrize(
    ("order", "error"), [([0, 2], NumberGapError), ([0, -1], TwoDecisionsError)], ids=["gap", "two decisions"]
)
def test_what_is_out_of_order_is_raised_and_read_again_until_it_is_resolved(
    order: list[int], error: type[SwitchError]
) -> None:
    sent = wire(SwitchRig(), 3)
    other = SwitchRig()
    other.say(verdict(DecisionWord.KILL))
    other.settle()
    sent.append(other.records(other.killswitch)[0].value or b"")
    stream = b"".join(event(sent[n], place) for place, n in enumerate(order, 1))
    with serving(stream) as (url, _), KillSwitchClient(url, KEYS) as client:
        for _ in range(2):
            with pytest.raises(error):
                list(client.events())
            assert client.last_event_id == "0:1"


def test_forged_events_are_raised() -> None:
    [sent] = wire(SwitchRig(), 1)
    with serving(event(sent, 1)) as (url, _), pytest.raises(UnknownKeyError):
        numbers(url, 1, PublicKeys([STRANGER.public]))
    with serving(event(sent.replace(b'"sig":"', b'"sig":"AA'), 1)) as (url, _), pytest.raises(SwitchError):
        numbers(url, 1)
    altered = bytearray(sent)
    at = sent.index(b'"sig":"') + 10
    altered[at] = ord("A") if altered[at] != ord("A") else ord("B")
    with serving(event(bytes(altered), 1)) as (url, _), pytest.raises(BadSignatureError):
        numbers(url, 1)
    with serving(event(b"{}", 1)) as (url, _), pytest.raises(MalformedEventError):
        numbers(url, 1)


def test_a_replays_events_are_raised_unless_asked_for() -> None:
    [sent] = wire(SwitchRig(Topics(lane="replay-1")), 1)
    with serving(event(sent, 1)) as (url, _):
        with pytest.raises(WrongLaneError):
            numbers(url, 1)
        with KillSwitchClient(url, KEYS, lane="replay-1") as client:
            assert next(client.events()).lane == "replay-1"


def test_an_event_of_another_rollout_than_asked_for_is_raised() -> None:
    [sent] = wire(SwitchRig(), 1)
    with (
        serving(event(sent, 1)) as (url, asked),
        KillSwitchClient(url, KEYS, rollout="r-other") as client,
        pytest.raises(SwitchError, match="mixes up"),
    ):
        next(client.events())
    assert "rollout=r-other" in asked[0]["path"]


def test_an_endless_event_is_cut_and_not_held_in_memory() -> None:
    with serving(b"data: " + b"x" * (2 << 20)) as (url, asked), pytest.raises(ClientError, match="failed"):
        numbers(url, 1)
    assert len(asked) == 3


def test_silence_is_a_dead_connection() -> None:
    sent = wire(SwitchRig(), 2)
    with (
        serving(b"retry: 1\n\n" + event(sent[0], 1), event(sent[1], 2), hang=True) as (url, asked),
        KillSwitchClient(url, KEYS, silence_seconds=0.2) as client,
    ):
        events = client.events()
        assert [next(events).number for _ in range(2)] == [1, 2]
    assert asked[1]["last-event-id"] == "0:1"


def test_an_overloaded_server_is_tried_again_and_an_absent_one_given_up() -> None:
    [sent] = wire(SwitchRig(), 1)
    with serving(503, event(sent, 1)) as (url, asked):
        assert numbers(url, 1) == [1]
        assert len(asked) == 2
    with KillSwitchClient("http://127.0.0.1:9", KEYS, connects_max=2) as client, pytest.raises(ClientError, match="up"):
        next(client.events())


def test_close_ends_the_events_from_another_thread() -> None:
    with serving(b": hello\n\n", hang=True) as (url, asked):
        client = KillSwitchClient(url, KEYS, silence_seconds=0.3)
        found: list[object] = []
        thread = threading.Thread(target=lambda: found.extend(client.events()))
        thread.start()
        eventually(lambda: bool(asked))
        client.close()
        thread.join(5)
        assert not thread.is_alive()
        assert found == []


def test_a_page_in_the_place_of_the_stream_is_tried_again() -> None:
    sent = wire(SwitchRig(), 1)
    with serving(event(sent[0], 1), pages=1) as (url, asked):
        assert numbers(url, 1) == [1]
    assert len(asked) == 2
