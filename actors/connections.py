"""Connections to the Hub and its storage that can be cut from another thread.

urllib3 waits for headers where nobody else can reach its socket. Here each socket is known from the moment it is
connected, so that a stop wakes whatever waits on it.
"""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any
from weakref import WeakSet

from typing_extensions import override
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection


class Connections(PoolManager):
    """A pool whose connections are cut all at once. at_once: how many are kept for each host."""

    def __init__(self, *, at_once: int) -> None:
        super().__init__(num_pools=8, maxsize=at_once, retries=False)
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._lock = threading.Lock()
        self._is_cut = False

    def cut(self) -> None:
        """Cut every connection that there is, and each that will be made."""
        with self._lock:
            self._is_cut = True
            for connected in self._sockets:
                _shut(connected)

    @staticmethod
    def cut_answer(response: BaseHTTPResponse) -> None:
        """Cut the connection that an answer comes on; one that is over has none any more."""
        connection = response.connection
        if isinstance(connection, _KnownConnection) and connection.connected is not None:
            _shut(connection.connected)

    @staticmethod
    def set_read_timeout(response: BaseHTTPResponse, seconds: float) -> None:
        """Set how long each further read of an answer may wait; the headers had a limit of their own."""
        connection = response.connection
        if isinstance(connection, _KnownConnection) and connection.connected is not None:
            with suppress(OSError):  # an answer without a body is over already
                connection.connected.settimeout(seconds)

    @override
    def _new_pool(
        self, scheme: str, host: str, port: int, request_context: dict[str, Any] | None = None
    ) -> HTTPConnectionPool:
        pool = super()._new_pool(scheme, host, port, request_context)
        kind = _KnownTlsConnection if scheme == "https" else _KnownConnection
        pool.ConnectionCls = partial(kind, on_connect=self._know)  # type: ignore[assignment]  # it is only called
        return pool

    def _know(self, connected: socket.socket) -> None:
        """Keep a socket in sight for as long as it lives."""
        with self._lock:
            self._sockets.add(connected)
            if self._is_cut:
                _shut(connected)


class _KnownConnection(HTTPConnection):
    """A connection that tells of its socket.

    connected: the socket; unlike `sock` it stays when the server is to close it behind its answer.
    """

    def __init__(self, *arguments: Any, on_connect: Callable[[socket.socket], None], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.connected: socket.socket | None = None
        self._on_connect = on_connect

    @override
    def connect(self) -> None:
        super().connect()
        self.connected = self.sock
        self._on_connect(self.sock)


class _KnownTlsConnection(_KnownConnection, HTTPSConnection):
    """The same over TLS."""


def _shut(connected: socket.socket) -> None:
    """End what waits on a socket; one that is closed by now needs no end."""
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)
