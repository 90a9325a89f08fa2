"""Relay: nodes with readable ids, and connections over keyset pages."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Generic, TypeVar

import strawberry

from db.paging import Page, PageRequest

T = TypeVar("T")
RowT = TypeVar("RowT")

First = Annotated[
    int | None, strawberry.argument(description="How many from the beginning: 1 to 100; 25 when neither is given.")
]
After = Annotated[str | None, strawberry.argument(description="Begin behind this cursor.")]
Last = Annotated[int | None, strawberry.argument(description="How many from the end: 1 to 100; not with `first`.")]
Before = Annotated[str | None, strawberry.argument(description="End in front of this cursor.")]


@strawberry.interface(description="Anything that has a stable, readable id, such as `Job:0192f6…`.")
class Node:
    """What `node(id:)` finds."""

    id: strawberry.ID = strawberry.field(description="Readable, stable, unique on this server.")


@strawberry.type(description="Where a page stands in its list.")
class PageInfo:
    """Relay's page info."""

    has_next_page: bool = strawberry.field(description="Whether there is more behind it.")
    has_previous_page: bool = strawberry.field(description="Whether there is more in front of it.")
    start_cursor: str | None = strawberry.field(description="The first row's cursor; null when the page is empty.")
    end_cursor: str | None = strawberry.field(description="The last row's cursor; null when the page is empty.")


@strawberry.type(description="One row of a list and its place in it.")
class Edge(Generic[T]):
    """Relay's edge."""

    cursor: str = strawberry.field(description="Its place in the list, for `after` and `before`.")
    node: T = strawberry.field(description="The row.")


@strawberry.type(description="One page of a list.")
class Connection(Generic[T]):
    """Relay's connection."""

    edges: list[Edge[T]] = strawberry.field(description="The rows with their cursors.")
    nodes: list[T] = strawberry.field(description="The rows.")
    page_info: PageInfo = strawberry.field(description="Where the page stands.")
    count: strawberry.Private[Callable[[], Awaitable[int]] | None] = None

    @strawberry.field(description="How many rows the whole list has; counted only when it is asked for.")
    async def total_count(self) -> int | None:
        """Count."""
        return await self.count() if self.count is not None else None


def connection(
    page: Page[RowT], convert: Callable[[RowT], T], *, count: Callable[[], Awaitable[int]] | None = None
) -> Connection[T]:
    """Show a page of rows."""
    nodes = [convert(row) for row in page.rows]
    return Connection(
        edges=[Edge(cursor=cursor, node=node) for cursor, node in zip(page.cursors, nodes, strict=True)],
        nodes=nodes,
        page_info=PageInfo(
            has_next_page=page.has_next,
            has_previous_page=page.has_previous,
            start_cursor=page.cursors[0] if page.cursors else None,
            end_cursor=page.cursors[-1] if page.cursors else None,
        ),
        count=count,
    )


def page_request(
    first: int | None, after: str | None, last: int | None = None, before: str | None = None
) -> PageRequest:
    """Gather the four arguments."""
    return PageRequest(first=first, after=after, last=last, before=before)
