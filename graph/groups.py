"""Identical subscriptions share one source, one execution and one encoding.

A group's source begins with the whole state and then tells changes; the group keeps the newest answer for each
subject (a job). Who joins is given what is kept and follows from there, in one step of the event loop: what it hears
is an end of what the group was told, so nothing is missed, nothing comes twice and nothing goes back.

The rule: a shared execution runs with a context of the group's own. What is not in the key is not in the context,
so nothing of one viewer can reach another. Which subscriptions share is decided in `graph/sharing.py`.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import strawberry

from graph.answers import COMPLETE, Answer, FormatErrors, Request, answers

logger = logging.getLogger(__name__)

ContextT = TypeVar("ContextT")


@dataclass(slots=True)
class Telling:
    """What a source is about to give; it says so right before it does.

    subject: what the answer is about; a newer answer about it takes the place of an older one.
    is_current: False when nobody who comes later needs to hear of the subject.
    """

    subject: Hashable = None
    is_current: bool = True

    def of(self, subject: Hashable, *, is_current: bool) -> None:
        """Say what comes next."""
        self.subject = subject
        self.is_current = is_current


@dataclass(frozen=True, kw_only=True)
class Sharing(Generic[ContextT]):
    """How a request is shared.

    key: all that its answers depend on. context: made from the key's parts alone. telling: set by the source.
    """

    key: Hashable
    context: ContextT
    telling: Telling


Share = Callable[[Request, ContextT], Sharing[ContextT] | None]


class Follower(Protocol):
    """One operation of one socket. None of this waits: a follower that is slow keeps what it has to."""

    def offer(self, answer: Answer, *, subject: Hashable) -> None:
        """Take the newest answer about a subject; one that is no `next` is the last."""

    def fail(self) -> None:
        """Hear that the group has met a fault of ours."""


class Group(Generic[ContextT]):
    """The followers of one source, and what somebody new has to be told."""

    def __init__(self, request: Request, sharing: Sharing[ContextT]) -> None:
        self.followers: dict[Follower, None] = {}
        self.request = request
        self.sharing = sharing
        self.task: asyncio.Task[None] | None = None
        self._kept: dict[Hashable, Answer] = {}

    def join(self, follower: Follower) -> None:
        """Tell a newcomer what is known, oldest first, and then whatever comes."""
        self.followers[follower] = None
        for subject, answer in self._kept.items():
            follower.offer(answer, subject=subject)

    def tell(self, answer: Answer) -> None:
        """Give everybody an answer, and keep it for those who come later."""
        telling = self.sharing.telling
        subject = telling.subject
        self._kept.pop(subject, None)  # It moves to the end: cursors rise in the order of what is kept.
        if telling.is_current:
            self._kept[subject] = answer
        for follower in tuple(self.followers):
            follower.offer(answer, subject=subject)

    def end(self, answer: Answer) -> None:
        """Tell everybody that there is no more."""
        for follower in tuple(self.followers):
            follower.offer(answer, subject=END)

    def fail(self) -> None:
        """Tell everybody that it went wrong."""
        for follower in tuple(self.followers):
            follower.fail()


END = object()
"""The subject of what is last: nothing takes its place."""


class Groups(Generic[ContextT]):
    """All groups of a process. A group lives as long as its source, and no longer than its last follower."""

    def __init__(self, schema: strawberry.Schema, format_errors: FormatErrors[ContextT]) -> None:
        self._schema = schema
        self._format_errors = format_errors
        self._groups: dict[Hashable, Group[ContextT]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def count(self) -> int:
        """How many sources run, those included that are being stopped."""
        return len(self._tasks)

    def join(self, follower: Follower, *, request: Request, sharing: Sharing[ContextT]) -> Callable[[], None]:
        """Follow a group, which begins with its first follower; return how to leave it."""
        group = self._groups.get(sharing.key)
        if group is None:
            group = self._groups[sharing.key] = Group(request, sharing)
            group.task = asyncio.create_task(self._run(group), name="subscription-group")
            self._tasks.add(group.task)
            group.task.add_done_callback(self._tasks.discard)
        group.join(follower)
        joined = group
        return lambda: self._leave(joined, follower)

    def _leave(self, group: Group[ContextT], follower: Follower) -> None:
        group.followers.pop(follower, None)
        if not group.followers:
            self._forget(group)
            if group.task is not None:
                group.task.cancel()

    def _forget(self, group: Group[ContextT]) -> None:
        """Let nobody join any more; somebody who comes now begins a group anew."""
        if self._groups.get(group.sharing.key) is group:
            del self._groups[group.sharing.key]

    async def _run(self, group: Group[ContextT]) -> None:
        stream = answers(
            self._schema,
            request=group.request,
            context=group.sharing.context,
            format_errors=self._format_errors,
        )
        last = COMPLETE
        try:
            async with aclosing(stream):
                async for answer in stream:
                    if answer.type == "error":
                        last = answer
                        break
                    group.tell(answer)
            self._forget(group)
            group.end(last)
        except Exception:
            logger.exception("A shared subscription ended in an exception")
            self._forget(group)
            group.fail()
        finally:
            self._forget(group)
