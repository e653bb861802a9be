"""A stand-in for Grafana: the paths of its HTTP API that provisioning uses, answered as its documentation says.

Sources: Grafana's HTTP API reference (folders, data sources, dashboards, alerting provisioning). No Grafana can be
installed where the tests run; what this can't show is whether a real one takes the bodies, which the published schemas
are for.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "glsa_test"


class FakeGrafana:
    """What it holds, and how it misbehaves.

    Attributes:
        version: as `/api/frontend/settings` says.
        forbidden: paths that answer 403.
        writes: requests that changed something.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self.version = "11.6.0"
        self.forbidden = ""
        self.writes: list[tuple[str, str]] = []
        self.held: dict[str, dict[str, Any]] = {}
        self.url = ""

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Return status and answer of one request."""
        if path == "/api/frontend/settings":
            return 200, {"buildInfo": {"version": self.version, "edition": "Open Source"}}
        if self.forbidden and re.search(self.forbidden, path) and method != "GET":
            return 403, {"message": "You'll need additional permissions to perform this action"}
        if method != "GET":
            self.writes.append((method, path))
        return (
            self._folders(method, path, body) or self._alerting(method, path, body) or (404, {"message": "Not found"})
        )

    def _folders(self, method: str, path: str, body: Any) -> tuple[int, Any] | None:
        if path in ("/api/folders", "/api/datasources"):
            return self._create(f"{path}/uid/{body['uid']}" if "data" in path else f"{path}/{body['uid']}", body)
        if path == "/api/dashboards/db":
            board = body["dashboard"]
            key = f"/api/dashboards/uid/{board['uid']}"
            if key in self.held and not body["overwrite"]:
                return 412, {"message": "The dashboard has been changed by someone else"}
            version = self.held.get(key, {}).get("dashboard", {}).get("version", 0) + 1
            kept = {**board, "id": 7, "version": version}
            self.held[key] = {"dashboard": kept, "meta": {"folderUid": body["folderUid"]}}
            return 200, {"status": "success", "uid": board["uid"], "version": version}
        if re.fullmatch(r"/api/(folders|datasources/uid|dashboards/uid)/[\w-]+", path):
            return self._one(method, path, body)
        return None

    def _alerting(self, method: str, path: str, body: Any) -> tuple[int, Any] | None:
        base = "/api/v1/provisioning"
        if path == f"{base}/contact-points" and method == "GET":
            return 200, [value for key, value in self.held.items() if key.startswith(path)]
        if path in (f"{base}/contact-points", f"{base}/alert-rules"):
            status, answer = self._create(f"{path}/{body['uid']}", body)
            return (202 if path.endswith("points") else 201) if status == 200 else status, answer
        if path.startswith((f"{base}/contact-points/", f"{base}/alert-rules/")):
            return self._one(method, path, body)
        return None

    def _create(self, key: str, body: Any) -> tuple[int, Any]:
        if key in self.held:
            return 409, {"message": "a resource with the same uid already exists"}
        self.held[key] = {**body, "id": len(self.held) + 1}
        self.held[key].pop("secureJsonData", None)
        return 200, self.held[key]

    def _one(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if path not in self.held:
            return 404, {"message": "Not found"}
        if method == "PUT":
            self.held[path] = {**self.held[path], **body}
            self.held[path].pop("secureJsonData", None)
        return 200, self.held[path]


@contextmanager
def fake_grafana() -> Iterator[FakeGrafana]:
    """Serve a Grafana's API on a free port of loopback."""
    fake = FakeGrafana()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            path = self.path.split("?")[0]
            if self.headers.get("authorization") != f"Bearer {TOKEN}":
                status, answer = 401, {"message": "Invalid API key"}
            else:
                status, answer = fake.answer(self.command, path, body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = _serve  # noqa: N815  # http.server names them

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
