"""Bodies of requests: read within limits of length, of silence and of time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from starlette.requests import ClientDisconnect, Request

from watcher.platform.faults import Fault, too_large

Chunks = AsyncGenerator[bytes, None]
# Sixty-four megabytes at a megabit a second.
_MAX_BODY_S = 600.0
_DRAIN_S = 5.0


async def read_body(request: Request, stream: Chunks, *, limit: int, idle_s: float) -> bytes:
    """The whole body.

    Args:
        request: whose body.
        stream: the body, of which nothing was read.
        limit: longest length in bytes.
        idle_s: longest wait for the next bytes; the whole has ten minutes.

    Raises:
        Fault: 413, 408 or 422: it is longer, came too slowly, or broke off.
    """
    announced = request.headers.get("content-length")
    if announced is not None and announced.isdigit() and int(announced) > limit:
        raise too_large(f"the body may have {limit} bytes at the most")
    body = bytearray()
    try:
        async with asyncio.timeout(_MAX_BODY_S):
            while True:
                async with asyncio.timeout(idle_s):
                    chunk = await anext(stream, None)
                if chunk is None:
                    return bytes(body)
                body += chunk
                if len(body) > limit:
                    raise too_large(f"the body may have {limit} bytes at the most")
    except TimeoutError as error:
        raise Fault(408, "BAD_REQUEST", "the body came too slowly") from error
    except ClientDisconnect as error:
        raise Fault(422, "MALFORMED_REQUEST", "the body ended early") from error


async def drop_body(request: Request, stream: Chunks) -> bool:
    """Takes what is left of a body and keeps nothing; tells whether the end came within five seconds.

    Who still sends when the connection is closed may never see the answer.
    """
    if "expect" in request.headers:  # who asks before sending has sent nothing
        return False
    try:
        async with asyncio.timeout(_DRAIN_S):
            async for _chunk in stream:
                pass
    except (TimeoutError, ClientDisconnect):
        return False
    return True
