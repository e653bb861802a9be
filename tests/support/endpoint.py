"""The product's read-only endpoint, served from a thread of the test."""

import asyncio
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2

from ingest.metrics import Metrics
from ingest.store.http import application
from ingest.store.reader import ChdbReader


class Endpoint(ThreadingHTTPServer):
    """Serves the product's endpoint from a thread of the test."""

    def __init__(self, reader: ChdbReader) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.application = application(reader, Metrics())


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Endpoint)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        transport = httpx2.ASGITransport(app=self.server.application)

        async def answered() -> httpx2.Response:
            async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return await client.post(self.path, content=body)

        answer = asyncio.run(answered())
        self.send_response(answer.status_code)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, *args: object) -> None:
        """Keep the test's output quiet."""
