"""What can be asked."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import strawberry

from core.ids import NodeType, parse_global_id
from core.token import Scope
from core.version import VERSION
from graph.context import Info
from graph.enums import DatabaseKind, OrderDirection, WeightSetOrderField
from graph.errors import RefusalsAsData, Scoped
from graph.relay import After, Before, Connection, First, Last, Node, connection, page_request
from graph.types.event import Event
from graph.types.inputs import EventFilter, InstallPlanInput, JobFilter, WeightSetFilter, WeightSetOrder
from graph.types.job import Job
from graph.types.overview import Overview
from graph.types.plan import AccessCheck, InstallPlan, InstallPlanPayload
from graph.types.server import ComponentStatus, QueueStats, Server, Viewer
from graph.types.settings import Settings
from graph.types.token import ApiToken
from graph.types.weight_set import Volume, WeightSet
from resolvers import events, health, jobs, overview, plans, queue, settings, tokens, weights
from resolvers.access import require

DOCUMENTATION_URL = "/graphiql/"
READ = Scoped(Scope.READ)


@strawberry.type(description="What can be asked. Everything here needs a token with scope READ, `tokens` ADMIN.")
class Query:
    """What can be asked."""

    @strawberry.field(
        description="Anything by its id; null when there is no such thing. A token needs scope ADMIN.",
        extensions=[READ],
    )
    async def node(
        self,
        info: Info,
        id: Annotated[
            strawberry.ID, strawberry.argument(description="As its `id` field shows it, e.g. `WeightSet:owner/name`.")
        ],
    ) -> Node | None:
        """Find by id."""
        node_type, key = parse_global_id(id, path=("id",))
        if node_type is NodeType.JOB:
            return await _job(info, id)
        if node_type is NodeType.EVENT:
            row = await events.get(info.context, position=key)
            return Event.from_row(row) if row is not None else None
        if node_type is NodeType.API_TOKEN:
            require(info.context, Scope.ADMIN)
            token = await tokens.get(info.context, token_id=id)
            return ApiToken.from_row(token) if token is not None else None
        return await _weight_set(info, set_id=id, name=None)

    @strawberry.field(description="What is on the volume.", extensions=[READ])
    async def weight_sets(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        filter: Annotated[WeightSetFilter | None, strawberry.argument(description="Which; all when left out.")] = None,
        order_by: Annotated[
            WeightSetOrder | None, strawberry.argument(description="How they are sorted; by name when left out.")
        ] = None,
    ) -> Connection[WeightSet]:
        """Read a page of sets."""
        set_filter = (filter or WeightSetFilter()).to_filter()
        order = order_by or WeightSetOrder(field=WeightSetOrderField.NAME)
        page = await weights.page(
            info.context,
            set_filter=set_filter,
            request=page_request(first, after, last, before),
            order=order.field,
            descending=order.direction is OrderDirection.DESC,
        )
        show = partial(WeightSet.from_row, settings=info.context.services.settings)
        return connection(page, show, count=partial(weights.count, info.context, set_filter=set_filter))

    @strawberry.field(description="One set, by its id or its name; null when there is none.", extensions=[READ])
    async def weight_set(
        self,
        info: Info,
        id: Annotated[
            strawberry.ID | None, strawberry.argument(description="`WeightSet:` and its name; not with `name`.")
        ] = None,
        name: Annotated[
            str | None, strawberry.argument(description="Its directory on the volume; not with `id`.")
        ] = None,
    ) -> WeightSet | None:
        """Find a set."""
        return await _weight_set(info, set_id=id, name=name)

    @strawberry.field(description="The weights volume; null while no worker has reported.", extensions=[READ])
    async def volume(self, info: Info) -> Volume | None:
        """Read the volume."""
        report = await weights.volume(info.context)
        return Volume.from_report(report) if report is not None else None

    @strawberry.field(
        description="What an install would do, before a byte is downloaded: commit, files, space, access.",
        extensions=[RefusalsAsData(), READ],
    )
    async def install_plan(
        self,
        info: Info,
        input: Annotated[InstallPlanInput, strawberry.argument(description="What would be installed.")],
    ) -> InstallPlanPayload | None:
        """Plan an install."""
        answer = await plans.install_plan(info.context, request=input.to_request())
        plan = InstallPlan.from_plan(answer.plan) if answer.plan is not None else None
        return InstallPlanPayload(plan=plan, access=AccessCheck.from_access(answer.access))

    @strawberry.field(description="What the workers are doing and have done, newest first.", extensions=[READ])
    async def jobs(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        filter: Annotated[JobFilter | None, strawberry.argument(description="Which; all when left out.")] = None,
    ) -> Connection[Job]:
        """Read a page of jobs."""
        job_filter = (filter or JobFilter()).to_filter()
        page = await jobs.page(info.context, job_filter=job_filter, request=page_request(first, after, last, before))
        return connection(page, Job.from_row, count=partial(jobs.count, info.context, job_filter=job_filter))

    @strawberry.field(description="One job; null when there is none.", extensions=[READ])
    async def job(
        self,
        info: Info,
        id: Annotated[
            strawberry.ID, strawberry.argument(description="As its `id` field shows it, e.g. `Job:0192f6…`.")
        ],
    ) -> Job | None:
        """Find a job."""
        return await _job(info, id)

    @strawberry.field(
        description="The journal: everything that has happened and who did it, newest first. The cursors are those of"
        " the `events` subscription.",
        extensions=[READ],
    )
    async def events(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        filter: Annotated[EventFilter | None, strawberry.argument(description="Which; all when left out.")] = None,
    ) -> Connection[Event]:
        """Read a page of the journal."""
        event_filter = (filter or EventFilter()).to_filter()
        page = await events.page(
            info.context, event_filter=event_filter, request=page_request(first, after, last, before)
        )
        return connection(page, Event.from_row, count=partial(events.count, info.context, event_filter=event_filter))

    @strawberry.field(description="How the queue is and who works on it.", extensions=[READ])
    async def queue(self, info: Info) -> QueueStats | None:
        """Read the queue."""
        return QueueStats.from_report(await queue.report(info.context))

    @strawberry.field(description="What a dashboard shows, in one.", extensions=[READ])
    async def overview(self, info: Info) -> Overview | None:
        """Read everything."""
        return Overview.from_overview(await overview.get(info.context))

    @strawberry.field(description="Who is asking.", extensions=[READ])
    async def viewer(self, info: Info) -> Viewer:
        """Show the token's owner."""
        return Viewer.from_viewer(info.context.viewer)

    @strawberry.field(
        description="The access tokens, newest first, revoked and expired ones included; needs scope ADMIN.",
        extensions=[Scoped(Scope.ADMIN)],
    )
    async def tokens(
        self, info: Info, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> Connection[ApiToken] | None:
        """Read a page of tokens."""
        page = await tokens.page(info.context, request=page_request(first, after, last, before))
        return connection(page, ApiToken.from_row, count=partial(tokens.count, info.context))

    @strawberry.field(description="What can be changed while the server runs, as it holds now.", extensions=[READ])
    async def settings(self, info: Info) -> Settings | None:
        """Read the settings."""
        locked = info.context.services.settings.lock_settings
        return Settings.from_value(await settings.get(info.context), locked=locked)

    @strawberry.field(description="This server and how its parts are.", extensions=[READ])
    async def server(self, info: Info) -> Server:
        """Look at the server."""
        services = info.context.services
        return Server(
            version=VERSION,
            started_at=services.started_at,
            database=DatabaseKind.SQLITE if services.database.is_sqlite else DatabaseKind.POSTGRESQL,
            documentation_url=DOCUMENTATION_URL,
            components=[ComponentStatus.from_component(part) for part in await health.components(services)],
        )


async def _job(info: Info, job_id: str) -> Job | None:
    """Find a job."""
    found = await jobs.get(info.context, job_id=job_id)
    return Job.from_snapshot(found) if found is not None else None


async def _weight_set(info: Info, *, set_id: str | None, name: str | None) -> WeightSet | None:
    """Find a set."""
    row = await weights.get(info.context, set_id=set_id, name=name)
    return WeightSet.from_row(row, settings=info.context.services.settings) if row is not None else None
