"""Answers that carry a file of the fake Hub: ranges, pace, and everything that can go wrong in a body.

Source: RFC 9110, section 14 (ranges) and 13.1.5 (If-Range).
"""

import asyncio
import hashlib
import mimetypes
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

from starlette.types import Receive, Scope, Send

from tests.fakes.hub_faults import Fault, Faults, Injection, Target
from tests.fakes.hub_records import Records
from tests.fakes.hub_repository import StoredFile

CHUNK_BYTES = 256 * 1024
PACED_CHUNKS_A_SECOND = 20
POLL_SECONDS = 0.01
OTHER_CONTENT = bytes(byte ^ 0x01 for byte in range(256))


class Line:
    """The hub's uplink: all answers share its bytes per second; None is as fast as it goes."""

    def __init__(self, bytes_per_second: float | None = None) -> None:
        self.bytes_per_second = bytes_per_second
        self._lock = threading.Lock()
        self._free_at = 0.0

    def book(self, size_bytes: int, rate: float) -> float:
        """Reserve the line for so many bytes; return how many seconds to wait before sending them."""
        with self._lock:
            now = time.monotonic()
            wait = max(0.0, self._free_at - now)
            self._free_at = max(now, self._free_at) + size_bytes / rate
            return wait


class Origin(Protocol):
    """What an answer needs to know of the hub it comes from."""

    faults: Faults
    records: Records
    line: Line
    stopping: threading.Event


def requested_range(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """Return first and last byte asked for; None when the header asks for no single range.

    Raises: ValueError when the range lies outside of the file.
    """
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", (header or "").replace(" ", ""))
    if match is None or match.group(1, 2) == ("", ""):
        return None
    first_text, last_text = match.group(1, 2)
    if not first_text:
        first, last = max(0, size_bytes - int(last_text)), size_bytes - 1
    elif last_text and int(last_text) < int(first_text):
        return None
    else:
        first, last = int(first_text), min(int(last_text or size_bytes), size_bytes - 1)
    if first > last:
        raise ValueError(f"{header} is outside of {size_bytes} bytes")
    return first, last


@dataclass(frozen=True)
class Body:
    """The bytes of one answer: a stretch of the file, with what was done to it."""

    file: StoredFile
    start: int
    length: int
    """May reach past the file's end: zeros follow."""
    is_changed: bool = False
    flipped_offset: int | None = None

    def read(self, position: int, length: int) -> bytes:
        """Return so many bytes from a position in this answer on."""
        offset = self.start + position
        data = self.file.read(offset, length).ljust(length, b"\0")
        if self.is_changed:
            data = data.translate(OTHER_CONTENT)
        if self.flipped_offset is not None and offset <= self.flipped_offset < offset + length:
            index = self.flipped_offset - offset
            data = data[:index] + bytes([data[index] ^ 0xFF]) + data[index + 1 :]
        return data


@dataclass(frozen=True)
class Answer:
    """One answer, decided: status, headers and body."""

    status: int
    headers: Mapping[str, str]
    body: Body


def decide(
    faults: Faults, file: StoredFile, *, target: Target, request: Mapping[str, str], extra: Mapping[str, str]
) -> Answer:
    """Decide the answer to a request for a file; only GET is struck by faults in what it carries."""
    struck = faults if target.method == "GET" else Faults()
    is_changed = struck.take(Fault.CHANGED, target) is not None
    etag = f'"{other_etag(file.etag) if is_changed else file.etag}"'
    headers = {**file_headers(file, etag=etag), **extra}
    try:
        asked = _range_of(struck, file, target=target, request=request, etag=etag)
    except ValueError:
        headers |= {"Content-Range": f"bytes */{file.size_bytes}", "Content-Length": "0"}
        return Answer(416, headers, Body(file, 0, 0))
    first, last = asked or (0, file.size_bytes - 1)
    if asked is not None:
        shift = 1 if struck.take(Fault.WRONG_CONTENT_RANGE, target) else 0
        headers["Content-Range"] = f"bytes {first + shift}-{last + shift}/{file.size_bytes}"
    body = _struck_body(struck, file, target=target, start=first, length=last + 1 - first, is_changed=is_changed)
    headers["Content-Length"] = str(body.length)
    return Answer(200 if asked is None else 206, headers, body)


def file_headers(file: StoredFile, *, etag: str) -> dict[str, str]:
    """Return what every answer says about a file."""
    name = file.path.rsplit("/", 1)[-1]
    return {
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Content-Type": mimetypes.guess_type(name)[0] or "application/octet-stream",
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(name)}; filename=\"{quote(name)}\";",
    }


def other_etag(etag: str) -> str:
    """Return the ETag of content that was changed: another digest of the same kind."""
    return hashlib.sha256(etag.encode()).hexdigest()[: len(etag)]


def _range_of(
    faults: Faults, file: StoredFile, *, target: Target, request: Mapping[str, str], etag: str
) -> tuple[int, int] | None:
    """Return the range to serve; None for the whole file."""
    header = request.get("range")
    if header is None or target.method != "GET":
        return None
    if faults.take(Fault.RANGE_NOT_SATISFIABLE, target):
        raise ValueError("refused on purpose")
    if faults.take(Fault.IGNORE_RANGE, target) or request.get("if-range", etag) != etag:
        return None
    return requested_range(header, file.size_bytes)


def _struck_body(
    faults: Faults, file: StoredFile, *, target: Target, start: int, length: int, is_changed: bool
) -> Body:
    flip = faults.take(Fault.FLIP_BYTE, target, shows=lambda found: start <= found.offset < start + length)
    cut = faults.take(Fault.TRUNCATE, target, shows=lambda found: found.after_bytes < length)
    if cut is not None:
        length = cut.after_bytes
    longer = faults.take(Fault.LONGER, target)
    if longer is not None:
        length += longer.extra_bytes
    return Body(file, start, length, is_changed, flip.offset if flip else None)


class FileSender:
    """Sends one decided answer over ASGI at the hub's pace, with the faults that strike on the way."""

    def __init__(self, hub: Origin, answer: Answer, *, target: Target) -> None:
        self.status_code = answer.status
        self.headers = dict(answer.headers)
        self._hub = hub
        self._answer = answer
        self._target = target
        self._throttle_line = Line()
        self._is_get = target.method == "GET"
        self._stall = self._take_inside(Fault.STALL)
        self._close = self._take_inside(Fault.EARLY_CLOSE)
        self._throttle = self._take_inside(Fault.THROTTLE)

    def _take_inside(self, kind: Fault) -> Injection | None:
        if not self._is_get:
            return None
        length = self._answer.body.length
        return self._hub.faults.take(kind, self._target, shows=lambda found: found.after_bytes < length)

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send status, headers and body; end without completing it where a fault or a stop says so."""
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        if not self._is_get or self._answer.body.length == 0:
            await send({"type": "http.response.body", "body": b""})
            return
        left = asyncio.create_task(_client_left(receive))
        try:
            await self._send_body(send, left)
        finally:
            left.cancel()

    async def _send_body(self, send: Send, left: "asyncio.Task[None]") -> None:
        body, position = self._answer.body, 0
        while position < body.length:
            await self._hold(position, left)
            size = self._next_size(position)
            if size == 0 or left.done() or self._hub.stopping.is_set():
                return
            await asyncio.sleep(self._wait_seconds(size))
            self._count(size)
            data = body.read(position, size)
            position += size
            await send({"type": "http.response.body", "body": data, "more_body": position < body.length})

    async def _hold(self, position: int, left: "asyncio.Task[None]") -> None:
        """Wait while the answer is stalled here."""
        stall, stopping = self._stall, self._hub.stopping
        if stall is not None and position == stall.after_bytes:
            await wait_until(lambda: stall.released.is_set() or left.done() or stopping.is_set())

    def _next_size(self, position: int) -> int:
        """Return how many bytes may go out in one piece: up to the next fault, as few as the pace asks for."""
        size = min(CHUNK_BYTES, self._answer.body.length - position)
        for _, rate in self._lines():
            size = min(size, max(1, int(rate / PACED_CHUNKS_A_SECOND)))
        if self._stall is not None and position < self._stall.after_bytes:
            size = min(size, self._stall.after_bytes - position)
        if self._close is not None:
            size = min(size, self._close.after_bytes - position)
        return size

    def _lines(self) -> list[tuple[Line, float]]:
        """Return the lines these bytes go over, each with its rate of this moment."""
        lines = [(self._hub.line, self._hub.line.bytes_per_second)]
        if self._throttle is not None:
            lines.append((self._throttle_line, self._throttle.bytes_per_second))
        return [(line, rate) for line, rate in lines if rate]

    def _wait_seconds(self, size: int) -> float:
        return max((line.book(size, rate) for line, rate in self._lines()), default=0.0)

    def _count(self, size: int) -> None:
        if self._target.repo_id is not None and self._target.path is not None:
            self._hub.records.add_bytes(self._target.repo_id, self._target.path, size)


async def _client_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def wait_until(is_over: Callable[[], bool]) -> None:
    """Return once it is over, looking again and again."""
    # Other threads set the flags that are looked at; an asyncio.Event is not theirs to set.
    while not is_over():  # noqa: ASYNC110
        await asyncio.sleep(POLL_SECONDS)
