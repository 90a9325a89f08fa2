"""The weight set and the volume that it lies on."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import strawberry

from core.ids import NodeType, global_id
from core.repository import DigestKind
from core.settings import Settings
from db.tables import WeightFile as WeightFileRow
from db.tables import WeightSet as WeightSetRow
from graph.context import Info
from graph.enums import FileFormat, WeightSetState
from graph.relay import After, Connection, First, Node, connection, page_request
from graph.scalars import Bytes
from resolvers import weights

if TYPE_CHECKING:
    from graph.types.job import Job

LazyJob = Annotated["Job", strawberry.lazy("graph.types.job")]
MOUNT_PATH = "/mnt/models"


@strawberry.type(description="One file of a weight set.")
class WeightFile:
    """One file of a weight set."""

    path: str = strawberry.field(description="Its path in the set.")
    size_bytes: Bytes = strawberry.field(description="Its size in bytes.")
    sha256: str | None = strawberry.field(
        description="Its SHA-256, 64 hex digits; null for small files, which the Hub names by their git digest."
    )
    format: FileFormat = strawberry.field(description="What it is for.")
    verified_at: datetime | None = strawberry.field(description="When its digest was last compared.")

    @classmethod
    def from_row(cls, row: WeightFileRow) -> WeightFile:
        """Show a row."""
        return cls(
            path=row.path,
            size_bytes=Bytes(row.size_bytes),
            sha256=row.digest_value if row.digest_kind is DigestKind.SHA256 else None,
            format=row.format,
            verified_at=row.verified_at,
        )


@strawberry.type(description="One directory of weights on the volume: a repository at one commit.")
class WeightSet(Node):
    """One directory of weights on the volume."""

    name: str = strawberry.field(description="Its directory, relative to the volume.")
    repo_id: str | None = strawberry.field(description="The Hugging Face repository that it comes from.")
    commit: str | None = strawberry.field(
        description="The commit that was installed, 40 hex digits, never a moving branch; null until it is known."
    )
    requested_revision: str | None = strawberry.field(description="The branch, tag or commit that was asked for.")
    state: WeightSetState = strawberry.field(description="What is known of it.")
    size_bytes: Bytes = strawberry.field(description="The sum of its files in bytes; 0 until it is READY.")
    file_count: int = strawberry.field(description="How many files it has; 0 until it is READY.")
    storage_uri: str = strawberry.field(description="What a catalog entry's storageUri would be.")
    inference_path: str = strawberry.field(
        description="Where a serving pod finds it when storageUri names the set: the path to pass as --model."
    )
    pinned: bool = strawberry.field(description="Whether it is kept from deletion.")
    installed_at: datetime | None = strawberry.field(description="When it was published.")
    verified_at: datetime | None = strawberry.field(description="When all its digests were last compared.")
    install_job_key: strawberry.Private[UUID | None]

    @strawberry.field(
        description="What deleting it would free, in bytes: its files whose content no other set shares by hard link."
    )
    async def exclusive_bytes(self, info: Info) -> Bytes:
        """Sum up, for all sets of the page in one statement."""
        return Bytes(await info.context.exclusive_bytes_loader.load(self.name))

    @strawberry.field(description="Its files, by path.")
    async def files(self, info: Info, first: First = None, after: After = None) -> Connection[WeightFile] | None:
        """Read a page of files."""
        page = await weights.files(info.context, name=self.name, request=page_request(first, after))
        return connection(page, WeightFile.from_row, count=partial(weights.count_files, info.context, name=self.name))

    @strawberry.field(description="The job that brought it, or is bringing it; null when that is forgotten.")
    async def install_job(self, info: Info) -> LazyJob | None:
        """Find the job."""
        from graph.types.job import Job  # noqa: PLC0415 - the two types know each other

        if self.install_job_key is None:
            return None
        found = await info.context.job_loader.load(self.install_job_key)
        return Job.from_snapshot(found) if found is not None else None

    @classmethod
    def from_row(cls, row: WeightSetRow, *, settings: Settings) -> WeightSet:
        """Show a row."""
        return cls(
            id=strawberry.ID(global_id(NodeType.WEIGHT_SET, row.name)),
            name=row.name,
            repo_id=row.repo_id,
            commit=row.commit,
            requested_revision=row.requested_revision,
            state=row.state,
            size_bytes=Bytes(row.size_bytes),
            file_count=row.file_count,
            storage_uri=f"pvc://{settings.pvc_name}/{row.name}",
            inference_path=MOUNT_PATH,
            pinned=row.pinned,
            installed_at=row.installed_at,
            verified_at=row.verified_at,
            install_job_key=row.install_job_id,
        )


@strawberry.type(description="The volume as the workers last saw it; stale after a minute.")
class Volume:
    """The weights volume."""

    id: strawberry.ID = strawberry.field(description="Always `Volume:weights`: there is one.")
    path: str = strawberry.field(description="Where the workers have it mounted.")
    capacity_bytes: Bytes = strawberry.field(description="Its size in bytes.")
    used_bytes: Bytes = strawberry.field(description="Bytes in use, by whatever.")
    free_bytes: Bytes = strawberry.field(description="Bytes that can still be written.")
    reserved_bytes: Bytes = strawberry.field(
        description="Bytes claimed by jobs that are accepted and not done, with a margin of 5 %."
    )
    weights_bytes: Bytes = strawberry.field(description="Bytes of all weight sets.")
    observed_at: datetime = strawberry.field(description="When a worker last looked.")

    @classmethod
    def from_report(cls, report: weights.VolumeReport) -> Volume:
        """Show what a worker saw."""
        row = report.row
        return cls(
            id=strawberry.ID("Volume:weights"),
            path=row.path,
            capacity_bytes=Bytes(row.capacity_bytes),
            used_bytes=Bytes(row.capacity_bytes - row.free_bytes),
            free_bytes=Bytes(row.free_bytes),
            reserved_bytes=Bytes(report.reserved_bytes),
            weights_bytes=Bytes(report.weights_bytes),
            observed_at=row.observed_at,
        )
