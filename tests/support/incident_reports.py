"""A recorded incident, to make reports of: what the store and the audit trail said after a replayed july-19 with rings.

The records lie in `golden/incident`, as `StoreSource` got them from an embedded Cordon, with the public keys; two
persons had released the kill in the end. Tests change them to see what a report makes of it.
"""

import base64
import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec

from dashboards.incident.gather import gathered
from dashboards.incident.material import Material
from dashboards.incident.source import RecordedSource
from detectors.policy import Policies
from ingest.events import encoder
from signals.client import PublicKeys
from signals.events import CloudEvent, Switch, event_decoder
from signals.killswitch.event import cloud_event
from signals.killswitch.signing import Signer
from signals.killswitch.verify import digest_of

FOLDER = Path(__file__).parents[1] / "golden" / "incident"
ROLLOUT = "r-1f1f6d97a3a031f1"
LANE = "replay"
KEYS = PublicKeys.parse((FOLDER / "keys.json").read_bytes())
# Elements that have no end tag.
_EMPTY = {"meta", "br", "hr", "img", "input", "link"}


def answers() -> dict[str, list[dict[str, Any]]]:
    """Return the recorded answers by query."""
    return {
        file.stem: [json.loads(line) for line in file.read_bytes().splitlines()]
        for file in FOLDER.glob("*.jsonl")
        if file.stem != "trail"
    }


def trail() -> list[bytes]:
    """Return the recorded entries of the audit trail."""
    return (FOLDER / "trail.jsonl").read_bytes().splitlines()


def material(
    found: dict[str, list[dict[str, Any]]] | None = None,
    *,
    entries: list[bytes] | None = None,
    lane: str = LANE,
    rollout: str = ROLLOUT,
    keys: PublicKeys = KEYS,
    policies: Sequence[Policies] = (),
) -> Material:
    """Return what a report is made of: the recording, or what a test has made of it."""
    said = answers() if found is None else found
    lines = {name: b"\n".join(msgspec.json.encode(row) for row in rows) for name, rows in said.items()}
    source = RecordedSource(lines, trail() if entries is None else entries)
    return gathered(source, rollout, lane, keys, policies)


def switches() -> list[Switch]:
    """Return what the recorded events say."""
    return [event_of(row["envelope"]).data for row in answers()["decisions"]]


def event_of(envelope: str) -> CloudEvent:
    """Return an envelope's event, unverified."""
    return event_decoder.decode(base64.b64decode(json.loads(envelope)["payload"]))


def signed(said: Sequence[Switch], signer: Signer) -> list[dict[str, Any]]:
    """Return events signed anew, numbered and chained as they stand, as the store would have them."""
    rows: list[dict[str, Any]] = []
    digest = ""
    for number, switch in enumerate(said, start=1):
        told = msgspec.structs.replace(switch, number=number, previous_digest=digest)
        payload = encoder.encode(cloud_event(told))
        digest = digest_of(payload)
        rows.append({"number": number, "envelope": encoder.encode(signer.sign(payload)).decode()})
    return rows


def forged(envelope: str, old: str, new: str) -> str:
    """Return an envelope whose payload says something else under the same signature."""
    read = json.loads(envelope)
    payload = base64.b64decode(read["payload"]).decode()
    assert old in payload
    read["payload"] = base64.b64encode(payload.replace(old, new).encode()).decode()
    return json.dumps(read)


class Read(HTMLParser):
    """What a browser would see of a page: elements, attributes, texts; and whether they are nested as they should be.

    Attributes:
        elements: (name, attributes), in order.
        texts: of the page, but for its style.
    """

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take an element's beginning."""
        self.elements.append((tag, dict(attrs)))
        if tag not in _EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take an element that ends at once."""
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Take an element's end."""
        assert self._open[-1:] == [tag], f"</{tag}> inside {self._open}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        """Take a text."""
        if self._open and self._open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All texts, spaces made single."""
        return " ".join(" ".join(self.texts).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of every element of that name."""
        return [attributes for name, attributes in self.elements if name == tag]
