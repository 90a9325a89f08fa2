"""Whose the open sockets are: how many a token may have, and that they end with it."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Hashable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from graph.ws_messages import CloseCode, SocketClosing

logger = logging.getLogger(__name__)

ContextT = TypeVar("ContextT")


@dataclass(frozen=True, slots=True)
class TokenRules(Generic[ContextT]):
    """What the endpoint has to know of tokens.

    token_of: what stands for the token that a context was made of. still_good: which of several still are; asked
    for all sockets of the process at once.
    """

    token_of: Callable[[ContextT], Hashable]
    still_good: Callable[[Collection[Any]], Awaitable[Collection[Any]]]


class Closable(Protocol):
    """A socket."""

    def end(self, closing: SocketClosing | None) -> None:
        """Have it closed."""


class Tokens(Generic[ContextT]):
    """The open sockets by token. A task looks at the tokens now and then while there is any socket."""

    def __init__(self, rules: TokenRules[ContextT] | None, *, most: int, check_seconds: float) -> None:
        self._rules = rules
        self._most = most
        self._check_seconds = check_seconds
        self._sockets: defaultdict[Hashable, set[Closable]] = defaultdict(set)
        self._token_of: dict[Closable, Hashable] = {}
        self._checking: asyncio.Task[None] | None = None

    def admit(self, socket: Closable, context: ContextT) -> None:
        """Take note of a socket that has signed in. Raises: SocketClosing when its token has too many."""
        if self._rules is None:
            return
        token = self._rules.token_of(context)
        if len(self._sockets[token]) >= self._most:
            raise SocketClosing(CloseCode.TRY_AGAIN_LATER, f"A token may have {self._most} sockets open at once")
        self._sockets[token].add(socket)
        self._token_of[socket] = token
        if self._checking is None:
            self._checking = asyncio.create_task(self._check(self._rules), name="token-check")

    def release(self, socket: Closable) -> None:
        """Forget a socket; again is no harm."""
        if socket not in self._token_of:
            return
        token = self._token_of.pop(socket)
        self._sockets[token].discard(socket)
        if not self._sockets[token]:
            del self._sockets[token]
        if not self._token_of and self._checking is not None:
            self._checking.cancel()
            self._checking = None

    async def _check(self, rules: TokenRules[ContextT]) -> None:
        while True:
            await asyncio.sleep(self._check_seconds)
            try:
                asked = tuple(self._sockets)
                good = await rules.still_good(asked)
            except Exception:  # The next look may succeed; what the tokens allow is asked of the database anyway.
                logger.warning("The tokens of open sockets could not be looked at", exc_info=True)
                continue
            for token in set(asked) - set(good):
                for socket in tuple(self._sockets.get(token, ())):
                    socket.end(SocketClosing(CloseCode.FORBIDDEN, "Forbidden"))
