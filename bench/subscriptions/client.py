"""Many sockets in one process, as light as can be: each has one subscription, and their messages are counted.

Arguments: port, path, number of sockets, job id, file with the tokens. It prints READY, begins to count at a line on
its standard input, and prints what it has counted, in JSON, at the next. Of every twentieth socket the latency is
taken: the messages carry the time at which they were published.
"""

import asyncio
import base64
import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import uvloop

QUERY = """subscription ($id: ID!) { jobProgress(jobId: $id) {
  state stage message attempt progress { bytesDone bytesTotal fraction bytesPerSecond lastByteAt } } }"""
SENT_AT = re.compile(rb'"message": ?"([0-9.]+)"')
SAMPLED_ONE_OF = 20
OPENED_AT_ONCE = 50
TEXT, CLOSE = 1, 8


class Counts:
    """What has been seen since counting began. ready: sockets that were acknowledged and have subscribed."""

    def __init__(self) -> None:
        self.ready = self.messages = self.lost = 0
        self.latencies: list[float] = []

    def begin(self) -> None:
        self.messages = 0
        self.latencies.clear()

    def report(self) -> dict[str, float]:
        found = sorted(self.latencies) or [-1.0]
        return {
            "messages": self.messages,
            "lost": self.lost,
            "p50_ms": found[len(found) // 2] * 1000,
            "p99_ms": found[int(len(found) * 0.99)] * 1000,
        }


def frame(message: object) -> bytes:
    """Write a masked text frame; a mask of zeros is as good as any here."""
    data = json.dumps(message).encode()
    size = bytes((0x80 | len(data),)) if len(data) < 126 else bytes((0x80 | 126,)) + len(data).to_bytes(2, "big")
    return b"\x81" + size + b"\0\0\0\0" + data


class Socket(asyncio.Protocol):
    """One subscriber."""

    def __init__(self, counts: Counts, *, number: int, address: str, job_id: str, token: str) -> None:
        self.counts = counts
        self.is_sampled = number % SAMPLED_ONE_OF == 0
        self.address = address
        self.job_id = job_id
        self.token = token
        self.rest = b""
        self.take: Callable[[bytes], None] = self.acknowledged
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast("asyncio.Transport", transport)
        host, _, path = self.address.partition("/")
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n".encode()
        )

    def connection_lost(self, _error: Exception | None) -> None:
        self.counts.lost += 1

    def data_received(self, data: bytes) -> None:
        if self.rest:
            data = self.rest + data
        if not self.is_open:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self.rest = head
                return
            assert head.startswith(b"HTTP/1.1 101 "), head
            self.is_open = True
            self.transport.write(frame({"type": "connection_init", "payload": {"authorization": self.token}}))
        self.rest = self.read(data)

    def read(self, data: bytes) -> bytes:
        """Take whole frames and return what is left."""
        begin, end = 0, len(data)
        while end - begin >= 2:
            size, head = data[begin + 1], 2
            if size == 126:
                size, head = int.from_bytes(data[begin + 2 : begin + 4], "big"), 4
            elif size == 127:
                size, head = int.from_bytes(data[begin + 2 : begin + 10], "big"), 10
            if end - begin < head + size:
                break
            kind = data[begin] & 15
            if kind == TEXT:
                self.take(data[begin + head : begin + head + size])
            elif kind == CLOSE:
                print("closed by the server:", data[begin + head + 2 : begin + head + size], file=sys.stderr)
            begin += head + size
        return data[begin:]

    def acknowledged(self, message: bytes) -> None:
        if b'"connection_ack"' not in message:
            return
        self.counts.ready += 1
        self.take = self.sampled if self.is_sampled else self.counted
        payload = {"query": QUERY, "variables": {"id": self.job_id}}
        self.transport.write(
            frame({"id": base64.b64encode(os.urandom(9)).decode(), "type": "subscribe", "payload": payload})
        )

    def counted(self, message: bytes) -> None:
        if message.startswith(b'{"id"') or b'"next"' in message:
            self.counts.messages += 1
        else:
            self.transport.write(frame({"type": "pong"}))

    def sampled(self, message: bytes) -> None:
        self.counted(message)
        if found := SENT_AT.search(message):
            self.counts.latencies.append(time.time() - float(found[1]))


async def main(port: str, path: str, number: str, job_id: str, tokens: list[str]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    counts, loop = Counts(), asyncio.get_running_loop()
    sockets = [
        Socket(
            counts,
            number=one,
            address=f"127.0.0.1:{port}{path}",
            job_id=job_id,
            token=f"Bearer {tokens[one % len(tokens)]}",
        )
        for one in range(int(number))
    ]
    for first in range(0, len(sockets), OPENED_AT_ONCE):
        some = sockets[first : first + OPENED_AT_ONCE]
        await asyncio.gather(
            *(loop.create_connection(lambda one=one: one, "127.0.0.1", int(port)) for one in some)  # type: ignore[misc]
        )
    async with asyncio.timeout(60):
        while counts.ready < len(sockets):  # noqa: ASYNC110 - what is waited for knows nothing of us
            await asyncio.sleep(0.05)
    await asyncio.sleep(2)
    print("READY", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    counts.begin()
    await loop.run_in_executor(None, sys.stdin.readline)
    print(json.dumps(counts.report()), flush=True)
    os._exit(0)


uvloop.run(main(*sys.argv[1:5], tokens=Path(sys.argv[5]).read_text().split()))
