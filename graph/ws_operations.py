"""What one socket asked for: operations that it runs itself, and those that it follows together with others."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Protocol, TypeVar

import orjson

from graph.answers import Answer
from graph.groups import Groups, Sharing
from graph.ws_connection import Begun
from graph.ws_messages import CloseCode, SocketClosing, Subscribe

MAX_WAITING = 1000

ContextT = TypeVar("ContextT")


class Outlet(Protocol):
    """The socket, as an operation sees it."""

    def push(self, text: str, operation: "Operation") -> Begun | None:
        """Have a message leave at once; None: it has, or there is nobody to hear it. What is returned: await it."""

    async def send(self, text: str, *, operation: "Operation") -> None:
        """Have a message leave after those that came before it."""

    def start(self, work: Callable[..., Coroutine[None, None, None]], *values: object) -> asyncio.Task[None]:
        """Run something that ends with the socket, or ends the socket."""

    def forget(self, operation: "Operation") -> None:
        """Let an operation's id be used again."""

    def end(self, closing: SocketClosing | None) -> None:
        """Have the socket closed."""


class Operation:
    """One running request of a socket; is_stopped: the client wants no more of it."""

    __slots__ = ("id", "is_stopped", "prefix", "request")

    def __init__(self, message: Subscribe) -> None:
        self.id = message.id
        self.prefix = f'{{"id":{orjson.dumps(message.id).decode()},"type":"'
        self.request = message.request
        self.is_stopped = False

    def frame(self, answer: Answer) -> str:
        """Put the id in front."""
        if answer.payload:
            return f'{self.prefix}{answer.type}","payload":{answer.payload}}}'
        return f'{self.prefix}{answer.type}"}}'

    def stop(self) -> None:
        """Send nothing more."""
        self.is_stopped = True


class OwnOperation(Operation):
    """One with a source and a task of its own: it awaits its sends, so a slow socket slows its source."""

    __slots__ = ("task",)

    def __init__(self, message: Subscribe) -> None:
        super().__init__(message)
        self.task: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Send nothing more, and run no further."""
        super().stop()
        if self.task is not None:
            self.task.cancel()


class SharedOperation(Operation):
    """One that follows a group. At most one message of it is on its way; what comes meanwhile waits.

    Of what waits the newest for each subject is kept, in the order in which it came, and the last word at the end.
    The answers belong to the group: what a slow socket costs is one message and a reference for each subject.
    """

    __slots__ = ("_leave", "_outlet", "_sending", "_waiting")

    def __init__(self, message: Subscribe, outlet: Outlet) -> None:
        super().__init__(message)
        self._leave: Callable[[], None] | None = None
        self._outlet = outlet
        self._sending: asyncio.Task[None] | None = None
        self._waiting: dict[Hashable, Answer] = {}

    def follow(self, groups: Groups[ContextT], sharing: Sharing[ContextT]) -> None:
        """Join the group of this request."""
        self._leave = groups.join(self, request=self.request, sharing=sharing)

    def offer(self, answer: Answer, *, subject: Hashable) -> None:
        """Send an answer at once, or keep it until the one before has left."""
        if self.is_stopped:
            return
        if self._sending is not None:
            self._waiting.pop(subject, None)
            self._waiting[subject] = answer
            if len(self._waiting) > MAX_WAITING:
                self._outlet.end(SocketClosing(CloseCode.NOT_KEEPING_UP, "Too much has happened that was not read"))
            return
        rest = self._outlet.push(self.frame(answer), self)
        if rest is not None:
            self._sending = self._outlet.start(self._send_on, rest, answer)
        elif answer.type != "next":
            self._outlet.forget(self)

    def fail(self) -> None:
        """End the socket."""
        self._outlet.end(SocketClosing(CloseCode.INTERNAL_ERROR, "Internal server error"))

    def stop(self) -> None:
        """Send nothing more, and follow no longer."""
        super().stop()
        self._waiting.clear()
        if self._sending is not None:
            self._sending.cancel()
        if self._leave is not None:
            self._leave()

    async def _send_on(self, rest: Begun, answer: Answer) -> None:
        """Wait until a message has left, then send what has come meanwhile."""
        await rest
        while self._waiting:
            answer = self._waiting.pop(next(iter(self._waiting)))
            await self._outlet.send(self.frame(answer), operation=self)
        self._sending = None
        if answer.type != "next":
            self._outlet.forget(self)
