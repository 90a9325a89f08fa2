"""What an operation carries in GraphQL: the resolvers' context and the loaders that make a list cost one query."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from uuid import UUID

import strawberry
from strawberry.dataloader import DataLoader

from db import tokens, weight_sets
from db.tables import Token, WeightSet
from graph.groups import Telling
from resolvers import jobs
from resolvers.context import Context
from resolvers.jobs import JobSnapshot


@dataclass(frozen=True, kw_only=True)
class GraphContext(Context):
    """One operation. The loaders join questions and remember no answers: a subscription lives long.

    telling: where a subscription to states says what its next answer is about.
    """

    telling: Telling = field(default_factory=Telling, compare=False)

    @cached_property
    def weight_set_loader(self) -> DataLoader[str, WeightSet | None]:
        """Finds sets by name, as many as are asked for at once."""
        return DataLoader(load_fn=self._weight_sets, cache=False)

    @cached_property
    def job_loader(self) -> DataLoader[UUID, JobSnapshot | None]:
        """Finds jobs by key, as many as are asked for at once."""
        return DataLoader(load_fn=self._jobs, cache=False)

    @cached_property
    def token_loader(self) -> DataLoader[UUID, Token | None]:
        """Finds tokens by key, as many as are asked for at once."""
        return DataLoader(load_fn=self._tokens, cache=False)

    async def _tokens(self, keys: list[UUID]) -> Sequence[Token | None]:
        async with self.services.database.read() as session:
            found = await tokens.get_many(session, keys)
        return [found.get(key) for key in keys]

    @cached_property
    def exclusive_bytes_loader(self) -> DataLoader[str, int]:
        """Sums up what deleting sets would free, for as many as are asked for at once."""
        return DataLoader(load_fn=self._exclusive_bytes, cache=False)

    async def _exclusive_bytes(self, names: list[str]) -> Sequence[int]:
        async with self.services.database.read() as session:
            found = await weight_sets.exclusive_bytes(session, names)
        return [found.get(name, 0) for name in names]

    async def _weight_sets(self, names: list[str]) -> Sequence[WeightSet | None]:
        async with self.services.database.read() as session:
            found = await weight_sets.get_many(session, names)
        return [found.get(name) for name in names]

    async def _jobs(self, keys: list[UUID]) -> Sequence[JobSnapshot | None]:
        found = await jobs.get_many(self, job_ids=keys)
        return [found.get(key) for key in keys]


Info = strawberry.Info[GraphContext, None]
