"""Which symptom of HTTP is which fault: exceptions of the transport, and answers whose status is not 200.

The exceptions of aiohttp carry the request's headers, key included, so that none of them leaves this module.
"""

from __future__ import annotations

import errno
import math
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import aiohttp

from engines.openai.chunks import error_words, read_object
from engines.openai.faults import Fault, FaultError

MOST_ERROR_BYTES = 8192
MOST_RETRY_AFTER_S = 86400.0


@asynccontextmanager
async def as_faults(connect_s: float, silence_s: float) -> AsyncIterator[None]:
    """The order matters: most of these classes are kinds of others. Nothing here is a time limit on the whole."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError:
        raise FaultError(Fault.UNREACHABLE, f"no connection within {connect_s:g} s") from None
    except aiohttp.SocketTimeoutError:
        raise FaultError(Fault.SILENCE, f"no byte for {silence_s:g} s") from None
    except aiohttp.ClientConnectorError as error:
        raise FaultError(Fault.UNREACHABLE, "no connection", _reason(error)) from None
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, aiohttp.ClientConnectionResetError):
        raise FaultError(Fault.CUT, "the connection ended before the answer did") from None
    except aiohttp.ClientOSError as error:
        raise FaultError(Fault.CUT, "the connection broke", _reason(error)) from None
    except aiohttp.ClientError as error:
        raise FaultError(Fault.GARBAGE, f"not HTTP ({type(error).__name__})") from None
    except OSError as error:  # too many open files, most often
        raise FaultError(Fault.UNREACHABLE, "no connection", _reason(error)) from None


async def refusal(response: aiohttp.ClientResponse) -> FaultError:
    """What an answer other than 200 means, with what its body says, as far as that comes."""
    status, headers = response.status, response.headers
    detail, words = f"{status} {_phrase(status)}".strip(), ""
    with suppress(aiohttp.ClientError):
        words = _words(await beginning(response, MOST_ERROR_BYTES))
    if 300 <= status < 400:
        return FaultError(Fault.REJECTED, f"{detail} to", headers.get("Location", "nowhere"), status)
    told = headers.get("Retry-After", "")
    if told:
        words = "; ".join(filter(None, (f"Retry-After: {told}", words)))
    return FaultError(_fault_of(status), detail, words, status, _seconds(told))


def _fault_of(status: int) -> Fault:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Fault.RATE_LIMITED
    return Fault.SERVER_ERROR if status >= 500 else Fault.REJECTED if status >= 400 else Fault.GARBAGE


async def beginning(response: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    """Of a body that may have no end."""
    read = bytearray()
    while len(read) < most_bytes and (piece := await response.content.readany()):
        read += piece
    return bytes(read[:most_bytes])


def _words(body: bytes) -> str:
    try:
        found = read_object(body)
    except FaultError:
        return body.decode(errors="replace")
    words = error_words(found) or found.get("message") or found.get("detail")
    return words if isinstance(words, str) else body.decode(errors="replace")


def _phrase(status: int) -> str:
    """Ours and not the server's, which may be anything."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _reason(error: OSError) -> str:
    """In the system's words: asyncio's repeat the address. Names and certificates have numbers of their own."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if cause.errno in (errno.EMFILE, errno.ENFILE):
        return f"{os.strerror(cause.errno)}; set max_connections, or raise ulimit -n"
    if cause.errno and not isinstance(cause, socket.gaierror | ssl.SSLError):
        return os.strerror(cause.errno)
    return cause.strerror or str(cause) or type(cause).__name__


def _seconds(retry_after: str) -> float | None:
    """Seconds, or a date; None where it is neither."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            moment = parsedate_to_datetime(retry_after)
        except ValueError:
            return None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), MOST_RETRY_AFTER_S) if math.isfinite(seconds) else None
