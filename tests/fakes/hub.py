"""A Hugging Face Hub of our own: real HTTP, real files, and faults on demand.

Honest enough for `huggingface_hub`, curl and aria2c. `python -m tests.fakes.hub` serves a demo set.
"""

import argparse
import itertools
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from starlette.applications import Starlette

from tests.fakes import repos
from tests.fakes.hub_access import TokenInfo
from tests.fakes.hub_faults import Fault, Faults, Injection
from tests.fakes.hub_records import Quotas, Records, RequestRecord
from tests.fakes.hub_repository import Gate, Repository, Source, files_under
from tests.fakes.hub_routes import build_app
from tests.fakes.hub_transfer import Line
from tests.fakes.server import AppServer

__all__ = ["FakeHub", "Fault", "Injection", "RequestRecord", "TokenInfo", "demo_hub"]


class FakeHub:
    """One hub with its repositories, tokens, faults and records; a context manager that serves it.

    With `cdn_host` (say "localhost") big files come from a second port under that name, as from a real CDN.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        cdn_host: str | None = None,
        bytes_per_second: float | None = None,
    ) -> None:
        self.tokens: dict[str, TokenInfo] = {}
        self.faults = Faults()
        self.records = Records()
        self.quotas = Quotas()
        self.line = Line(bytes_per_second)
        self.stopping = threading.Event()
        self.page_size = 1000
        """Rows in one page of a list or a tree, at most."""
        self.signed_url_seconds = 3600.0
        """How long a link to the CDN is good for."""
        self.app: Starlette = build_app(self)
        self._lock = threading.Lock()
        self._repositories: dict[str, Repository] = {}
        self._request_numbers = itertools.count(1)
        self._server = AppServer(self.app, host=host, port=port)
        self._cdn_server = AppServer(self.app) if cdn_host else None
        self._cdn_host = cdn_host

    @property
    def url(self) -> str:
        """What clients take as their endpoint."""
        return self._server.url

    @property
    def cdn_url(self) -> str | None:
        """Where big files come from; None: from the hub itself."""
        return f"http://{self._cdn_host}:{self._cdn_server.port}" if self._cdn_server else None

    @property
    def other_name_url(self) -> str:
        """The hub under another host name: what a client must take for a stranger."""
        return f"http://localhost:{self._server.port}"

    @property
    def bytes_per_second(self) -> float | None:
        """The pace all answers share; may be changed while they run; None is as fast as it goes."""
        return self.line.bytes_per_second

    @bytes_per_second.setter
    def bytes_per_second(self, pace: float | None) -> None:
        if pace is not None and pace <= 0:
            raise ValueError("bytes_per_second must be positive; add Fault.STALL for nothing at all")
        self.line.bytes_per_second = pace

    def start(self) -> None:
        """Serve until stopped; after a stop the same port is taken again."""
        self.stopping.clear()
        for server in self._servers():
            server.start()

    def stop(self) -> None:
        """Break off what is running and close the port."""
        self.stopping.set()
        for server in self._servers():
            server.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def add_repository(
        self,
        repo_id: str,
        files: Mapping[str, Source] | Path,
        *,
        gated: Gate = False,
        private: bool = False,
        disabled: bool = False,
        branches: Mapping[str, Mapping[str, Source | None]] | None = None,
        tags: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Make a repository from a mapping or a directory; return the commit `main` is at.

        `branches` holds what each branch changes on top of `main`; `tags` names a branch or a commit for each tag.
        """
        repository = Repository(repo_id, gated, private, disabled, metadata=dict(metadata or {}))
        first = repository.commit(files_under(files) if isinstance(files, Path) else files)
        for branch, changes in (branches or {}).items():
            repository.commit(changes, branch=branch, title=f"Start {branch}")
        for tag, revision in (tags or {}).items():
            repository.tags[tag] = _sha_of(repository, revision)
        with self._lock:
            self._repositories[repo_id] = repository
        return first.sha

    def add_commit(
        self,
        repo_id: str,
        files: Mapping[str, Source | None],
        *,
        branch: str = "main",
        title: str = "Upload files",
    ) -> str:
        """Change files (None deletes) and move the branch; return the new commit."""
        repository = self.repository(repo_id)
        with self._lock:
            return repository.commit(files, branch=branch, title=title).sha

    def add_tag(self, repo_id: str, tag: str, *, revision: str = "main") -> None:
        """Name a commit."""
        repository = self.repository(repo_id)
        repository.tags = {**repository.tags, tag: _sha_of(repository, revision)}

    def remove_repository(self, repo_id: str) -> None:
        """Delete a repository with its history."""
        with self._lock:
            del self._repositories[repo_id]

    def repository(self, repo_id: str) -> Repository:
        """Return a repository, to look at or to change."""
        repository = self.find_repository(repo_id)
        if repository is None:
            raise KeyError(repo_id)
        return repository

    def find_repository(self, repo_id: str) -> Repository | None:
        """Return a repository if there is one of this name."""
        with self._lock:
            return self._repositories.get(repo_id)

    def repositories(self) -> list[Repository]:
        """Return all repositories in the order they were added."""
        with self._lock:
            return list(self._repositories.values())

    @property
    def requests(self) -> list[RequestRecord]:
        """Every request so far with its status, without those to /_control."""
        return self.records.requests()

    def bytes_served(self, repo_id: str | None = None, path: str | None = None) -> int:
        """Count the body bytes of file contents that were sent: of a file, of a repository, or of all.

        Exact where the answer ended or was cut by a fault; what a client left unread counts as sent.
        """
        return sum(
            count
            for (served_id, served_path), count in self.records.bytes_by_file().items()
            if repo_id in (None, served_id) and path in (None, served_path)
        )

    def next_request_id(self) -> str:
        """Return the X-Request-Id of the next answer."""
        return f"Root=1-{next(self._request_numbers):08x}"

    def _servers(self) -> list[AppServer]:
        return [self._server, self._cdn_server] if self._cdn_server else [self._server]


def _sha_of(repository: Repository, revision: str) -> str:
    commit = repository.resolve(revision)
    if commit is None:
        raise KeyError(revision)
    return commit.sha


def demo_hub(**options: Any) -> FakeHub:
    """Return a hub, not yet started, with one real model and several small made-up ones."""
    hub = FakeHub(**options)
    hub.tokens["hf_demo"] = TokenInfo("demo-reader", granted=frozenset({"demo/gated-chat"}))
    hub.tokens["hf_waiting"] = TokenInfo("demo-newcomer", awaiting=frozenset({"demo/gated-chat"}))
    for repo_id, made in repos.demo_repositories().items():
        hub.add_repository(repo_id, made.files, gated=made.gated, metadata=made.metadata)
    return hub


def main() -> None:
    """Serve the demo set until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.hub", description=main.__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 picks a free one")
    parser.add_argument("--bytes-per-second", type=float, default=None, help="pace of all downloads together")
    arguments = parser.parse_args()
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    with demo_hub(host=arguments.host, port=arguments.port, bytes_per_second=arguments.bytes_per_second) as hub:
        print(hub.url, flush=True)
        stop.wait()


if __name__ == "__main__":
    main()
