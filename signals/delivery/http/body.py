"""Reads a request's body, bounded, for every route that takes one."""

from starlette.requests import Request

from ingest.gateway.refusal import RequestRefusedError
from ingest.outcome import Refusal


async def read_body(request: Request, bytes_max: int) -> bytes:
    """Return the body.

    Raises:
        RequestRefusedError: it is larger than `bytes_max`; no more than that is kept.
    """
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > bytes_max:
            raise RequestRefusedError(Refusal.BODY_TOO_LARGE, f"a body of this path has at most {bytes_max} bytes")
    return bytes(data)
