"""The health page of a worker and of a signals process: alive, ready, metrics; for probes and Prometheus, no token.

Says nothing of any rollout or device. The invariant: `ready` is said only while this process does its own
share; what it sees of the others stands beside it.
"""

from collections.abc import Callable

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.metrics import Metrics
from ingest.sight import SightSource

_encode = msgspec.json.Encoder().encode


def health_app(problems: Callable[[], list[str]], sight: SightSource | None, metrics: Metrics) -> Starlette:
    """Return the application.

    Args:
        problems: why this process is not ready, by itself; empty when it is.
        sight: whether Cordon as a whole sees; None where this process does not watch.
        metrics: of this process.
    """

    async def healthz(_request: Request) -> Response:
        return Response(b'{"status":"ok"}', media_type="application/json")

    async def readyz(_request: Request) -> Response:
        found = problems()
        said = {"ready": not found, "problems": found}
        # What others lack makes this process no less ready: taking it out of service would only blind Cordon more.
        if sight is not None:
            said["sight"] = sight.sight()
        return Response(_encode(said), 503 if found else 200, media_type="application/json")

    async def exposition(_request: Request) -> Response:
        return Response(metrics.exposition(), media_type="text/plain; version=0.0.4")

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", exposition)])
