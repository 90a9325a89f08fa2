"""GraphQL over WebSocket: the server's side of the sub-protocol graphql-transport-ws.

One ASGI application per schema, one session per socket. An operation has a task of its own and awaits its own
sends, or follows a group of identical ones (`graph/groups.py`); a slow socket slows nobody else, and one that stands
still is dropped. What a token may do, what an operation may cost and what an error may tell is left to `sign_in`, to
the schema's extensions and to `format_errors`.

Source: PROTOCOL.md of the npm package graphql-ws 6.4; RFC 6455, section 7.4 (close codes).
Needs: uvicorn with `ws=DroppableProtocol`, `ws_max_size` = `SocketLimits.frame_bytes` (larger frames end with
1009 before they are read whole), `ws_per_message_deflate=False`, `ws_ping_interval=None` (pings are sent here).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import strawberry
from graphql import GraphQLError
from starlette.types import Receive, Scope, Send

from core.errors import AccessError
from graph.answers import COMPLETE, FormatErrors, Request, answers, failure
from graph.groups import Groups, Share
from graph.ws_connection import DROP, Begun, Drop, begin, is_same_origin, leave_open
from graph.ws_messages import (
    CloseCode,
    Complete,
    Init,
    Message,
    Ping,
    Pong,
    SocketClosing,
    Subscribe,
    bad,
    read_message,
    write_pong,
)
from graph.ws_operations import Operation, OwnOperation, SharedOperation
from graph.ws_tokens import TokenRules, Tokens

logger = logging.getLogger(__name__)

SUBPROTOCOL = "graphql-transport-ws"
MINUTE_SECONDS = 60.0

ContextT = TypeVar("ContextT")
RawSend = Callable[[MutableMapping[str, Any]], Coroutine[Any, None, None]]
SignIn = Callable[[str | None], Awaitable[ContextT]]


@dataclass(frozen=True, kw_only=True)
class SocketLimits:
    """What one socket may take.

    init_timeout_seconds: from the handshake to connection_init, and again for signing in.
    operations: how many run at once; one more is answered with an `error` message, the socket stays.
    subscribes_per_minute: how many may begin at once, and then on average; one more closes the socket.
    sockets_per_token: how many may be open; one more is closed.
    token_check_seconds: between two looks at whether the tokens of all sockets are still good.
    frame_bytes: a message's size in UTF-8; a larger one closes the socket.
    id_length: characters of an operation's id; a longer one closes the socket.
    query_bytes: a document's size in UTF-8; a larger one is answered with an `error` message.
    ping_interval_seconds: between two pings of ours.
    pong_timeout_seconds: how long a client may stay silent; any message of its own counts as a sign of life.
    send_timeout_seconds: how long one message may take to leave; then the connection is dropped.
    """

    init_timeout_seconds: float = 5.0
    operations: int = 50
    subscribes_per_minute: int = 300
    sockets_per_token: int = 20
    token_check_seconds: float = 2.0
    frame_bytes: int = 1 << 20
    id_length: int = 64
    query_bytes: int = 16 << 10
    ping_interval_seconds: float = 12.0
    pong_timeout_seconds: float = 24.0
    send_timeout_seconds: float = 15.0


class SocketGoneError(Exception):
    """The peer has left: there is nobody to tell anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service(Generic[ContextT]):
    """What every socket of an endpoint shares."""

    schema: strawberry.Schema
    sign_in: SignIn[ContextT]
    format_errors: FormatErrors[ContextT]
    limits: SocketLimits
    groups: Groups[ContextT]
    share: Share[ContextT]
    tokens: Tokens[ContextT]


@dataclass(frozen=True, slots=True)
class SignedIn(Generic[ContextT]):
    """The client was acknowledged; context: what its operations run with."""

    context: ContextT


class Session(Generic[ContextT]):
    """One accepted socket.

    Order: a task reads, one keeps the connection alive, each operation has its own; the first that ends the
    socket says how, the peer is told, and then all of them are cancelled and awaited.
    """

    def __init__(self, service: Service[ContextT], *, receive: Receive, send: Send, drop: Drop) -> None:
        self.operations: dict[str, Operation] = {}
        self._service = service
        self._limits = service.limits
        self._receive = receive
        self._raw_send = cast("RawSend", send)
        self._drop = drop
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[SocketClosing | None] = self._loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._own_tasks: set[asyncio.Task[None]] = set()
        self._subscribes_left = float(service.limits.subscribes_per_minute)
        self._subscribed_at = 0.0
        self._lock = asyncio.Lock()
        self._sending_since: float | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._heard_at = self._loop.time()
        self._init_came = asyncio.Event()
        self._signed_in: SignedIn[ContextT] | None = None

    async def run(self) -> None:
        """Serve the socket until either side ends it."""
        self.start(self._read)
        self.start(self._keep_alive)
        try:
            closing = await self._ended
            self._stop_operations()
            await self._part(closing)
        finally:
            self._stop_operations()
            await self._stop()

    def end(self, closing: SocketClosing | None) -> None:
        """Have the socket closed, unless that is under way; None: the peer has left already."""
        if not self._ended.done():
            self._ended.set_result(closing)

    async def _part(self, closing: SocketClosing | None) -> None:
        """Tell the peer, where it can still hear, and see to it that the connection goes away."""
        self._drop(self._limits.send_timeout_seconds)
        if closing is None:
            return
        message = {"type": "websocket.close", "code": int(closing.code), "reason": closing.reason}
        with suppress(OSError, RuntimeError, TimeoutError):  # The server may have closed it at the same moment.
            async with asyncio.timeout(self._limits.send_timeout_seconds):
                await self._raw_send(message)

    def _stop_operations(self) -> None:
        self._service.tokens.release(self)
        for operation in self.operations.values():
            operation.stop()
        self.operations.clear()

    async def _stop(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def start(self, work: Callable[..., Coroutine[None, None, None]], *values: object) -> asyncio.Task[None]:
        """Run something that ends with the socket, or ends the socket."""
        task = asyncio.create_task(self._guard(work, *values))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guard(self, work: Callable[..., Coroutine[None, None, None]], *values: object) -> None:
        """Let whatever ends a task of the socket end the socket."""
        try:
            await work(*values)
        except SocketClosing as closing:
            self.end(closing)
        except SocketGoneError:
            self.end(None)
        except Exception:
            logger.exception("A WebSocket's task ended in an exception")
            self.end(SocketClosing(CloseCode.INTERNAL_ERROR, "Internal server error"))

    async def _read(self) -> None:
        while True:
            event = await self._receive()
            if event["type"] == "websocket.disconnect":
                raise SocketGoneError
            self._heard_at = self._loop.time()
            text = event.get("text")
            if text is None:
                raise bad("a message must be a text frame, not a binary one")
            message = read_message(text, frame_bytes=self._limits.frame_bytes, id_length=self._limits.id_length)
            await self._take(message)

    async def _take(self, message: Message) -> None:
        match message:
            case Init():
                await self._begin(message)
            case Ping():
                await self.send(write_pong(message))
            case Pong():
                pass
            case Subscribe():
                await self._subscribe(message)
            case Complete():
                self._complete(message)

    async def _begin(self, message: Init) -> None:
        if self._init_came.is_set():
            raise SocketClosing(CloseCode.TOO_MANY_INITIALISATIONS, "Too many initialisation requests")
        self._init_came.set()
        try:
            async with asyncio.timeout(self._limits.init_timeout_seconds):
                context = await self._service.sign_in(message.token)
        except AccessError as error:
            raise SocketClosing(CloseCode.FORBIDDEN, "Forbidden") from error
        except Exception as error:
            logger.exception("Signing in over a WebSocket failed")
            raise SocketClosing(CloseCode.TRY_AGAIN_LATER, "Try again later") from error
        self._service.tokens.admit(self, context)
        await self.send('{"type":"connection_ack"}')
        self._signed_in = SignedIn(context)

    async def _subscribe(self, message: Subscribe) -> None:
        if self._signed_in is None:
            raise SocketClosing(CloseCode.UNAUTHORIZED, "Unauthorized")
        if message.id in self.operations:
            reason = f"Subscriber for {message.id} already exists"
            raise SocketClosing(CloseCode.SUBSCRIBER_EXISTS, reason)
        self._check_rate()
        context = self._signed_in.context
        if refusal := self._refusal(message.request):
            errors = self._service.format_errors([refusal], context)
            await self.send(Operation(message).frame(failure(errors, is_started=False)))
            return
        sharing = self._service.share(message.request, context)
        if sharing is not None:
            shared = self.operations[message.id] = SharedOperation(message, self)
            shared.follow(self._service.groups, sharing)
            return
        operation = self.operations[message.id] = OwnOperation(message)
        operation.task = self.start(self._operate, operation, context)
        self._own_tasks.add(operation.task)
        operation.task.add_done_callback(self._own_tasks.discard)

    def _check_rate(self) -> None:
        """Close a socket that begins operations without end."""
        most, now = self._limits.subscribes_per_minute, self._loop.time()
        gained = (now - self._subscribed_at) * most / MINUTE_SECONDS
        self._subscribes_left = min(float(most), self._subscribes_left + gained) - 1
        self._subscribed_at = now
        if self._subscribes_left < 0:
            reason = f"At most {most} operations may begin on one socket in a minute"
            raise SocketClosing(CloseCode.POLICY_VIOLATION, reason)

    def _refusal(self, request: Request) -> GraphQLError | None:
        """Say which limit a request breaks; those that the client has stopped count until they are gone."""
        shared = sum(isinstance(operation, SharedOperation) for operation in self.operations.values())
        if len(self._own_tasks) + shared >= self._limits.operations:
            return GraphQLError(f"At most {self._limits.operations} operations may run on one socket.")
        if len(request.query.encode()) > self._limits.query_bytes:
            return GraphQLError(f"The document must be no larger than {self._limits.query_bytes} bytes.")
        return None

    def _complete(self, message: Complete) -> None:
        operation = self.operations.pop(message.id, None)
        if operation is not None:
            operation.stop()

    def forget(self, operation: Operation) -> None:
        """Let an operation's id be used again."""
        if self.operations.get(operation.id) is operation:
            del self.operations[operation.id]

    async def _operate(self, operation: Operation, context: ContextT) -> None:
        service = self._service
        stream = answers(
            service.schema, request=operation.request, context=context, format_errors=service.format_errors
        )
        try:
            async with aclosing(stream):
                async for answer in stream:
                    await self.send(operation.frame(answer), operation=operation)
                    if answer.type == "error":
                        return
            await self.send(operation.frame(COMPLETE), operation=operation)
        finally:
            self.forget(operation)

    def push(self, text: str, operation: Operation) -> Begun | None:
        """Have a message leave at once, where the socket takes it; what is returned has still to be awaited."""
        if self._ended.done():
            return None
        try:
            if self._lock.locked():
                return begin(self.send(text, operation=operation))
            begun = begin(self._raw_send({"type": "websocket.send", "text": text}))
            return begun and begin(self.send(text, operation=operation, begun=begun))
        except (OSError, SocketGoneError):
            self.end(None)
        except Exception:
            logger.exception("A message could not be sent")
            self.end(SocketClosing(CloseCode.INTERNAL_ERROR, "Internal server error"))
        return None

    async def send(self, text: str, *, operation: Operation | None = None, begun: Begun | None = None) -> None:
        """Have one message leave, after those that came before it. begun: it is on its way already.

        Nothing of an operation is sent once the client has stopped it, even where its source ignored that.
        """
        async with self._lock:
            if self._ended.done():
                raise SocketGoneError
            if operation is not None and operation.is_stopped:
                return
            self._sending_since = self._loop.time()
            if self._stall_timer is None:
                self._watch_sending(self._limits.send_timeout_seconds)
            try:
                await (begun or self._raw_send({"type": "websocket.send", "text": text}))
            except OSError as error:
                raise SocketGoneError from error
            finally:
                self._sending_since = None

    def _watch_sending(self, after_seconds: float) -> None:
        self._stall_timer = self._loop.call_later(after_seconds, self._check_sending)

    def _check_sending(self) -> None:
        """Drop a socket whose message does not leave: one timer now and then, rather than one a message.

        No close code can be told: it would have to wait behind that message.
        """
        self._stall_timer = None
        if self._sending_since is None:
            return
        left = self._sending_since + self._limits.send_timeout_seconds - self._loop.time()
        if left > 0:
            self._watch_sending(left)
        else:
            logger.info("A WebSocket was dropped, because its client does not read")
            self._drop(0.0)
            self.end(None)

    async def _keep_alive(self) -> None:
        """Expect connection_init in time; from then on ask now and then whether the client is there."""
        try:
            async with asyncio.timeout(self._limits.init_timeout_seconds):
                await self._init_came.wait()
        except TimeoutError as error:
            reason = "Connection initialisation timeout"
            raise SocketClosing(CloseCode.INITIALISATION_TIMEOUT, reason) from error
        next_ping_at = self._loop.time() + self._limits.ping_interval_seconds
        while True:
            silent_at = self._heard_at + self._limits.pong_timeout_seconds
            await asyncio.sleep(min(next_ping_at, silent_at) - self._loop.time())
            if self._loop.time() >= self._heard_at + self._limits.pong_timeout_seconds:
                raise SocketClosing(CloseCode.NOT_KEEPING_UP, "No message came in time, not even a pong")
            if self._loop.time() >= next_ping_at:
                await self.send('{"type":"ping"}')
                next_ping_at = self._loop.time() + self._limits.ping_interval_seconds


def share_nothing(_request: Request, _context: object) -> None:
    """Execute each operation for its own socket."""


class TransportWebSocket(Generic[ContextT]):
    """The endpoint: an ASGI application for the scope `websocket`.

    allowed_origins: pages of other hosts that may connect, each as scheme://host[:port].
    share: which requests are executed together. token_rules: None means that tokens are looked at once.
    """

    def __init__(
        self,
        *,
        schema: strawberry.Schema,
        sign_in: SignIn[ContextT],
        format_errors: FormatErrors[ContextT],
        limits: SocketLimits = SocketLimits(),
        allowed_origins: frozenset[str] = frozenset(),
        share: Share[ContextT] = share_nothing,
        token_rules: TokenRules[ContextT] | None = None,
    ) -> None:
        self.groups = Groups(schema, format_errors)
        self._service = Service(
            schema=schema,
            sign_in=sign_in,
            format_errors=format_errors,
            limits=limits,
            groups=self.groups,
            share=share,
            tokens=Tokens(token_rules, most=limits.sockets_per_token, check_seconds=limits.token_check_seconds),
        )
        self._allowed_origins = allowed_origins
        self._sessions: set[Session[ContextT]] = set()
        self._is_draining = False

    @property
    def open_count(self) -> int:
        """How many sockets are open."""
        return len(self._sessions)

    @property
    def operation_count(self) -> int:
        """How many operations run on all of them."""
        return sum(len(session.operations) for session in self._sessions)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one socket from its handshake to its end."""
        await receive()
        with suppress(OSError):
            if not is_same_origin(scope["headers"], allowed_origins=self._allowed_origins):
                await send({"type": "websocket.close"})
            elif SUBPROTOCOL not in scope["subprotocols"]:
                await _accept_and_close(send, CloseCode.SUBPROTOCOL_NOT_ACCEPTABLE, "Subprotocol not acceptable")
            else:
                await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
                await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        drop: Drop = scope.get("state", {}).get(DROP, leave_open)
        session = Session(self._service, receive=receive, send=send, drop=drop)
        self._sessions.add(session)
        if self._is_draining:
            session.end(_service_restart())
        try:
            await session.run()
        finally:
            self._sessions.discard(session)

    async def drain(self, *, over_seconds: float) -> None:
        """Close every socket with 1012, one after the other over that time, and refuse new ones with 1012."""
        self._is_draining = True
        sessions = list(self._sessions)
        for session in sessions:
            session.end(_service_restart())
            await asyncio.sleep(over_seconds / len(sessions))


def _service_restart() -> SocketClosing:
    return SocketClosing(CloseCode.SERVICE_RESTART, "Service restart")


async def _accept_and_close(send: Send, code: CloseCode, reason: str) -> None:
    """Refuse in a way that a browser's page can read: a refused handshake tells it nothing."""
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": int(code), "reason": reason})
