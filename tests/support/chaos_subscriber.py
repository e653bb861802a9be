"""A subscriber in a process of its own, which tests end with SIGKILL and start again: `KIND FOLDER JSON`.

Each kind writes what it did to `done` in its folder, durably and before it moves on, and on a start first reads what it
did: so an event that comes again, because the place to go on from was not written yet, is done once.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
from aiohttp import web

from signals.client import KillSwitchClient, PublicKeys
from signals.client.webhooks import verify
from signals.killswitch.verify import open_event, parse_envelope

RETRY_SECONDS = 0.2


class Done:
    """What this subscriber did, on disk."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "done"
        # A line that was cut off by the kill was not acknowledged: it goes, and the event comes again.
        lines = self._path.read_bytes().splitlines(keepends=True) if self._path.exists() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        self._path.write_bytes(b"".join(whole))
        self._seen = {line.decode().strip() for line in whole}
        self._file = self._path.open("ab", buffering=0)

    def do(self, event_id: str) -> None:
        """Do what an event asks for, once."""
        if event_id not in self._seen:
            self._seen.add(event_id)
            self._file.write(f"{event_id}\n".encode())
            os.fsync(self._file.fileno())


def stream(folder: Path, given: dict[str, Any]) -> None:
    """Follow the stream with the product's own client and its state on disk."""
    done, keys = Done(folder), PublicKeys.parse(Path(given["keys"]).read_bytes())
    with KillSwitchClient(given["url"], keys, token=given["token"], from_start=True, state=folder / "state") as client:
        for verified in client.verified():
            done.do(verified.event.id)


def poll(folder: Path, given: dict[str, Any]) -> None:
    """Ask for page after page, and keep the cursor in a file."""
    done, keys = Done(folder), PublicKeys.parse(Path(given["keys"]).read_bytes())
    kept = folder / "cursor"
    headers = {"authorization": f"Bearer {given['token']}"}
    with httpx2.Client(base_url=given["url"], headers=headers, timeout=30, trust_env=False) as http:
        while True:
            place = {"after": kept.read_text()} if kept.exists() else {"from": "start"}
            try:
                answer = http.get("/v1/killswitch/events", params={**place, "wait": "5", "limit": "3"})
                answer.raise_for_status()
            except httpx2.HTTPError:
                time.sleep(RETRY_SECONDS)
                continue
            for envelope in answer.json()["events"]:
                done.do(open_event(parse_envelope(json.dumps(envelope).encode()), keys).event.id)
            fresh = kept.with_suffix(".fresh")
            fresh.write_text(answer.json()["next"])
            fresh.replace(kept)


def webhook(folder: Path, given: dict[str, Any]) -> None:
    """Take posts, and answer only once what they ask for is done."""
    done, keys = Done(folder), PublicKeys.parse(Path(given["keys"]).read_bytes())

    async def take(request: web.Request) -> web.Response:
        # Read at each post: the webhook is made, and its secret known, after this process listens.
        secret = (folder / "secret").read_text()
        done.do(verify(dict(request.headers), await request.read(), secret, keys=keys).id)
        return web.Response()

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/", take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", given["port"], reuse_address=True).start()
        await asyncio.Event().wait()

    asyncio.run(serve())


if __name__ == "__main__":
    KINDS = {"stream": stream, "poll": poll, "webhook": webhook}
    KINDS[sys.argv[1]](Path(sys.argv[2]), json.loads(sys.argv[3]))
