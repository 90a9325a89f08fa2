"""The connection under a socket: how it is dropped, and how a message leaves it without a switch of tasks.

Pages of other origins are kept off it.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from typing_extensions import override
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState

DROP = "drop_connection"
DEFAULT_PORTS = {"http": ":80", "https": ":443"}
Drop = Callable[[float], None]


class Begun:
    """A coroutine that was begun outside of any task, and stands where it has to wait: `await` it to its end.

    What is awaited mostly has nothing to wait for: a thousand sends then cost no task and no turn of the loop.
    """

    def __init__(self, coroutine: Coroutine[Any, None, None], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, None, None]:
        """Hand the waiting to the task that awaits this, and what happens to that task to the coroutine."""
        while True:
            thrown: BaseException | None = None
            try:
                yield self._waits_for
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is the coroutine's
                thrown = error
            try:
                if thrown is None:
                    self._waits_for = self._coroutine.send(None)
                else:
                    self._waits_for = self._coroutine.throw(thrown)
            except StopIteration:
                return


def begin(coroutine: Coroutine[Any, None, None]) -> Begun | None:
    """Run a coroutine as far as it goes without waiting; None: it has ended. Raises: what it raises."""
    try:
        waits_for = coroutine.send(None)
    except StopIteration:
        return None
    return Begun(coroutine, waits_for)


class DroppableProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol whose application can drop the connection, by `scope["state"]`.

    A transport that is closed first sends what it holds, so a peer that reads nothing would keep it for ever.
    """

    def __init__(self, *, app_state: dict[str, Any], **rest: Any) -> None:
        super().__init__(app_state={**app_state, DROP: self.drop}, **rest)
        self.dropping: asyncio.TimerHandle | None = None
        self.is_lost = False

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if self.dropping is not None:
            self.dropping.cancel()
        super().connection_lost(exc)

    @override
    def shutdown(self) -> None:
        """End with the server: uvicorn's own raises, and stops the server's shutdown, where the peer is closing."""
        try:
            super().shutdown()
        except InvalidState:
            self.transport.close()

    def drop(self, after_seconds: float) -> None:
        """End the TCP connection if it is still there after that time, whatever is unsent; the first call counts."""
        if self.dropping is None and not self.is_lost:
            self.dropping = asyncio.get_running_loop().call_later(after_seconds, self._reset)

    def _reset(self) -> None:
        wire = self.transport.get_extra_info("socket")
        if wire is not None:
            with suppress(OSError):  # The kernel, too, shall forget what it holds.
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


def leave_open(_after_seconds: float) -> None:
    """Drop nothing: the server has no way to."""


def is_same_origin(headers: Iterable[tuple[bytes, bytes]], *, allowed_origins: frozenset[str]) -> bool:
    """Tell whether a handshake comes from no page, from one of ours, or from one that is allowed."""
    values = [(name.lower(), value.decode("latin-1").strip().lower()) for name, value in headers]
    hosts = {value for name, value in values if name == b"host"}
    origins = {value for name, value in values if name == b"origin"}
    return all(origin in allowed_origins or _is_of_host(origin, hosts=hosts) for origin in origins)


def _is_of_host(origin: str, *, hosts: set[str]) -> bool:
    try:
        url = urlsplit(origin)
    except ValueError:
        return False
    port = DEFAULT_PORTS.get(url.scheme)
    if port is None or not url.netloc:
        return False
    return {url.netloc.removesuffix(port)} == {host.removesuffix(port) for host in hosts}
