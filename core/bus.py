"""The bus between processes: wake-ups and progress over Redis, never truth. The only owner of redis and broadcaster.

A subscriber registers here first and reads the database then. Whatever the bus loses (a slow reader, a restart
of Redis) it makes good by telling subscribers to catch up. With Redis away they read the database at intervals.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson
from broadcaster import Broadcast, Event
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from core.errors import SettingsError

CHANNEL = "model-manager:changes"
MAX_PENDING_TOPICS = 64
MAX_QUEUED_MESSAGES = 1024
READ_TIMEOUT_SECONDS = 10.0
CONNECT_TIMEOUT_SECONDS = 3.0
SOCKET_TIMEOUT_SECONDS = 5.0
MIN_BACK_OFF_SECONDS = 0.1
MAX_BACK_OFF_SECONDS = 5.0
LIVE_PATIENCE_SECONDS = 15.0
DEGRADED_PATIENCE_SECONDS = 2.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Changes:
    """What a subscriber has to know of since it last looked.

    newest: per topic the last message's data. must_catch_up: some were lost, or time has passed: read the truth.
    """

    newest: dict[str, dict[str, Any]]
    must_catch_up: bool


@dataclass(eq=False)
class Subscription:
    """One subscriber's bounded memory: the newest message per topic, or a note that too much has happened."""

    bus: "Bus"
    pattern: str
    _newest: dict[str, dict[str, Any]] = field(default_factory=dict)
    _must_catch_up: bool = False
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def matches(self, topic: str) -> bool:
        """Tell whether a topic is meant; a pattern that ends in `*` means all that begin so."""
        if self.pattern.endswith("*"):
            return topic.startswith(self.pattern[:-1])
        return topic == self.pattern

    def offer(self, topic: str, data: dict[str, Any]) -> None:
        """Keep a message until the subscriber looks; the newest of a topic wins."""
        if topic not in self._newest and len(self._newest) >= MAX_PENDING_TOPICS:
            self.demand_catch_up()
            return
        self._newest[topic] = joined(self._newest.get(topic), data)
        self._wake.set()

    def demand_catch_up(self) -> None:
        """Make the subscriber read the truth."""
        self._newest.clear()
        self._must_catch_up = True
        self._wake.set()

    async def next(self) -> Changes:
        """Wait for changes; without any, answer after a while all the same, sooner while Redis is away."""
        patience = LIVE_PATIENCE_SECONDS if self.bus.is_live else DEGRADED_PATIENCE_SECONDS
        try:
            async with asyncio.timeout(patience):
                await self._wake.wait()
        except TimeoutError:
            self._must_catch_up = True
        changes = Changes(dict(self._newest), self._must_catch_up)
        self._newest.clear()
        self._must_catch_up = False
        self._wake.clear()
        return changes


class SupervisedRedis:
    """A backend for broadcaster that outlives restarts of Redis and says when it is live.

    Connect, SUBSCRIBE, wait for the confirmation, be live; read with a time limit and a PING; on any error be
    degraded and begin anew after a back-off of 0.1 to 5 s.
    """

    def __init__(self, url: str, *, on_state: Callable[[bool], None]) -> None:
        self._url = url
        self._on_state = on_state
        self._messages: asyncio.Queue[Event] = asyncio.Queue(MAX_QUEUED_MESSAGES)
        self._client = connect(url)
        self._listener: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Begin to listen; Redis need not be there yet."""
        self._listener = asyncio.create_task(self._listen(), name="bus-listener")

    async def disconnect(self) -> None:
        """Stop listening and close the connections."""
        if self._listener is not None:
            self._listener.cancel()
            with suppress(asyncio.CancelledError):
                await self._listener
        await self._client.aclose()

    async def subscribe(self, channel: str) -> None:
        """Take note; there is one channel, and the listener is on it from the start."""

    async def unsubscribe(self, channel: str) -> None:
        """Take note; the listener stays on the channel."""

    async def publish(self, channel: str, message: Any) -> None:
        """Send one message. Raises: RedisError, OSError."""
        await self._client.publish(channel, message)

    async def next_published(self) -> Event:
        """Wait for a message of the channel."""
        return await self._messages.get()

    async def ping(self) -> None:
        """Ask Redis for a sign of life. Raises: RedisError, OSError."""
        await self._client.ping()

    async def _listen(self) -> None:
        """Listen for ever, whatever happens to Redis."""
        back_off = MIN_BACK_OFF_SECONDS
        while True:
            try:
                async with self._client.pubsub() as channel:
                    await channel.subscribe(CHANNEL)
                    async for live in self._read(channel):
                        if live:
                            back_off = MIN_BACK_OFF_SECONDS
                            self._on_state(True)
            except (RedisError, OSError, TimeoutError) as error:
                logger.warning("The bus is degraded: Redis is away", extra={"reason": type(error).__name__})
            self._on_state(False)
            await asyncio.sleep(back_off * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            back_off = min(back_off * 2, MAX_BACK_OFF_SECONDS)

    async def _read(self, channel: PubSub) -> AsyncIterator[bool]:
        """Move messages into the queue; yield True when the subscription has been confirmed."""
        is_pinged = False
        while True:
            message = await channel.get_message(timeout=READ_TIMEOUT_SECONDS)
            if message is None:
                if is_pinged:
                    raise TimeoutError("no answer to a ping")
                await channel.ping()
                is_pinged = True
                continue
            is_pinged = False
            if message["type"] == "subscribe":
                yield True
            elif message["type"] == "message":
                self._keep(Event(CHANNEL, message["data"]))

    def _keep(self, event: Event) -> None:
        """Queue a message; when nobody takes them, the oldest goes and everybody catches up."""
        if self._messages.full():
            self._messages.get_nowait()
            self._on_state(True)
        self._messages.put_nowait(event)


class Bus:
    """One process's place on the bus. Publishing never blocks and never fails: what cannot be sent is dropped."""

    def __init__(self, url: str) -> None:
        self.is_live = False
        self._backend = SupervisedRedis(url, on_state=self._note_state)
        self._broadcast = Broadcast(backend=self._backend)  # type: ignore[arg-type]  # structurally a backend
        self._subscriptions: set[Subscription] = set()
        self._outgoing: dict[str, dict[str, Any]] = {}
        self._has_outgoing = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Bus"]:
        """Be on the bus for the length of a block."""
        await self._broadcast.connect()
        self._tasks = [
            asyncio.create_task(self._receive(), name="bus-receive"),
            asyncio.create_task(self._send(), name="bus-send"),
        ]
        try:
            yield self
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._broadcast.disconnect()

    @contextmanager
    def subscribe(self, pattern: str) -> Iterator[Subscription]:
        """Register for a topic, or for all topics that begin alike (`job:*`)."""
        subscription = Subscription(self, pattern)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def publish(self, topic: str, data: dict[str, Any] | None = None) -> None:
        """Tell everybody of a change. data: what has changed; None means: read it."""
        if topic in self._outgoing or len(self._outgoing) < MAX_QUEUED_MESSAGES:
            self._outgoing[topic] = joined(self._outgoing.get(topic), data or {})
            self._has_outgoing.set()

    async def ping(self) -> None:
        """Ask Redis for a sign of life. Raises: RedisError, OSError, TimeoutError."""
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
            await self._backend.ping()

    def _note_state(self, is_live: bool) -> None:
        """Remember whether Redis is there; whoever missed something in between catches up."""
        self.is_live = is_live
        for subscription in self._subscriptions:
            subscription.demand_catch_up()

    async def _receive(self) -> None:
        """Hand what arrives to the subscribers that it concerns."""
        async with self._broadcast.subscribe(CHANNEL) as messages:
            while True:
                found = _read(await messages.get())
                if found is None:
                    continue
                topic, data = found
                for subscription in self._subscriptions:
                    if subscription.matches(topic):
                        subscription.offer(topic, data)

    async def _send(self) -> None:
        """Send what is outgoing, the newest of each topic."""
        while True:
            await self._has_outgoing.wait()
            self._has_outgoing.clear()
            while self._outgoing:
                topic = next(iter(self._outgoing))
                data = self._outgoing.pop(topic)
                with suppress(RedisError, OSError, TimeoutError):
                    await self._broadcast.publish(CHANNEL, orjson.dumps({"topic": topic, "data": data}))


def joined(waiting: dict[str, Any] | None, data: dict[str, Any]) -> dict[str, Any]:
    """Coalesce two messages of a topic: the newer one, but never at the price of a `{}` that says to read."""
    return data if waiting is None or waiting else waiting


def _read(event: Event) -> tuple[str, dict[str, Any]] | None:
    """Read a message; None, and a warning, for what none of ours has sent."""
    try:
        found = orjson.loads(event.message)
        topic, data = found["topic"], found["data"]
    except (ValueError, TypeError, KeyError):
        topic = data = None
    if isinstance(topic, str) and isinstance(data, dict):
        return topic, data
    logger.warning("The bus carries something that is no message of ours")
    return None


def connect(url: str) -> "Redis":
    """Make a client with time limits on everything."""
    return Redis.from_url(
        url,
        socket_timeout=SOCKET_TIMEOUT_SECONDS + READ_TIMEOUT_SECONDS,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        health_check_interval=15,
    )


async def check(url: str) -> None:
    """Ask Redis for a sign of life before a process starts.

    Raises: SettingsError in one sentence, without the password.
    """
    client = connect(url)
    parts = urlsplit(url)
    place = parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or 6379}"
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
            await client.ping()
    except (RedisError, OSError, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        raise SettingsError(f"Redis at {place} cannot be used: {reason}") from error
    finally:
        await client.aclose()


def job_topic(job_id: object) -> str:
    """Name the topic of a job's changes."""
    return f"job:{job_id}"


ALL_JOBS = "job:*"
JOURNAL = "journal"
"""Told after each commit that wrote to the journal."""
