"""The product as its users run it: real processes, configured by the environment, talked to over the wire."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.servers.postgres import free_port

ROOT = Path(__file__).parents[2]
ADMIN_TOKEN = "an-admin-token-for-tests-only"
STARTED = """
mutation ($input: InstallWeightsInput!) {
  installWeights(input: $input) { outcome job { id state } weightSet { id state } userErrors { code message path } }
}
"""
JOB = """
query ($id: ID!) {
  job(id: $id) {
    state stage message attempt waitingFor error { code message hint } weightSet { state }
    progress { bytesDone bytesTotal verifiedBytes filesDone filesTotal }
    log(first: 100) { nodes { message } }
  }
}
"""
WATCH = """
subscription ($id: ID!) {
  jobProgress(jobId: $id) { state stage attempt progress { fraction bytesDone bytesTotal verifiedBytes filesDone } }
}
"""


@dataclass
class Process:
    """One process of the product and what it has said."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        """All that it has printed."""
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """End it without warning."""
        self.popen.kill()
        self.popen.wait()

    def stop(self, *, timeout_seconds: float = 20) -> int:
        """Ask it to stop and return its exit code."""
        self.popen.terminate()
        return self.popen.wait(timeout_seconds)


@dataclass
class Stack:
    """Some processes over one database, one Redis, one volume and one Hub."""

    environment: dict[str, str]
    directory: Path
    processes: list[Process] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The API's address."""
        return f"http://127.0.0.1:{self.environment['MODEL_MANAGER_PORT']}"

    @property
    def weights(self) -> Path:
        """The volume."""
        return Path(self.environment["MODEL_MANAGER_WEIGHTS_DIR"])

    def start(self, name: str, **more: str) -> Process:
        """Start a process."""
        log = self.directory / f"{name}-{len(self.processes)}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                [sys.executable, "-m", "cli", name],
                cwd=ROOT,
                env={**self.environment, **more},
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        process = Process(name, popen, log)
        self.processes.append(process)
        return process

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "cli", *arguments],
            cwd=ROOT,
            env={**self.environment, **more},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def execute(self, query: str, variables: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run an operation and return its data."""
        request = urllib.request.Request(
            f"{self.url}/graphql",
            data=json.dumps({"query": query, "variables": variables or {}}).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {ADMIN_TOKEN}"},
        )
        with urllib.request.urlopen(request, timeout=15) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer
        data: dict[str, Any] = answer["data"]
        return data

    def install(self, repo_id: str, **more: Any) -> dict[str, Any]:
        """Ask for an install and return the payload."""
        payload: dict[str, Any] = self.execute(STARTED, {"input": {"repoId": repo_id, **more}})["installWeights"]
        assert payload["userErrors"] == []
        return payload

    def job(self, job_id: str) -> dict[str, Any]:
        """Read a job."""
        found: dict[str, Any] = self.execute(JOB, {"id": job_id})["job"]
        return found

    def wait_for_job(self, job_id: str, is_it: Callable[[dict[str, Any]], bool], *, seconds: float) -> dict[str, Any]:
        """Wait until a job is as it should be."""
        return until(lambda: (job := self.job(job_id)) and is_it(job) and job, seconds=seconds, what="the job")

    def wait_until_ready(self) -> None:
        """Wait until every part answers."""
        until(self._ready, seconds=40, what="the stack")

    def _ready(self) -> bool:
        """Ask whether it is ready."""
        for process in self.processes:
            assert process.popen.poll() in {None, 0, -signal.SIGKILL, -signal.SIGTERM}, process.output
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    @asynccontextmanager
    async def watching(self, job_id: str) -> AsyncIterator["Watcher"]:
        """Subscribe to a job's progress for the length of a block."""
        watcher = Watcher()
        task = asyncio.create_task(self._watch(job_id, watcher))
        try:
            yield watcher
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self, job_id: str, watcher: "Watcher") -> None:
        """Speak the protocol by hand and keep what comes."""
        address = self.url.replace("http://", "ws://") + "/graphql"
        async with connect(address, subprotocols=[Subprotocol("graphql-transport-ws")]) as socket:
            await socket.send(
                json.dumps({"type": "connection_init", "payload": {"authorization": f"Bearer {ADMIN_TOKEN}"}})
            )
            assert json.loads(await socket.recv()) == {"type": "connection_ack"}
            payload = {"query": WATCH, "variables": {"id": job_id}}
            await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
            async for frame in socket:
                message = json.loads(frame)
                if message["type"] == "next":
                    watcher.seen.append(message["payload"]["data"]["jobProgress"])
                elif message["type"] == "ping":
                    await socket.send('{"type":"pong"}')
                else:
                    watcher.last = message["type"]
                    watcher.completed.set()
                    return


@dataclass
class Watcher:
    """What a subscriber saw."""

    seen: list[dict[str, Any]] = field(default_factory=list)
    last: str | None = None
    completed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def states(self) -> list[str]:
        """The states in the order in which they were seen, each change once."""
        states = [one["state"] for one in self.seen]
        return [state for number, state in enumerate(states) if number == 0 or state != states[number - 1]]


def until(is_it: Callable[[], Any], *, seconds: float, what: str) -> Any:
    """Wait until something is so and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = is_it()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} was not as it should be within {seconds} s")


@contextmanager
def stack(directory: Path, **settings: str) -> Iterator[Stack]:
    """Prepare a stack; whatever it started is ended when the block is left."""
    directory.mkdir(parents=True, exist_ok=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MODEL_MANAGER_")}
    found = Stack(
        {
            **clean,
            "MODEL_MANAGER_STATE_DIR": str(directory / "state"),
            "MODEL_MANAGER_WEIGHTS_DIR": str(directory / "weights"),
            "MODEL_MANAGER_PORT": str(free_port()),
            "MODEL_MANAGER_METRICS_PORT": "0",
            "MODEL_MANAGER_ADMIN_TOKEN": ADMIN_TOKEN,
            "MODEL_MANAGER_LEASE_SECONDS": "2",
            **{f"MODEL_MANAGER_{name}": value for name, value in settings.items()},
        },
        directory,
    )
    try:
        yield found
    finally:
        for process in found.processes:
            if process.popen.poll() is None:
                process.popen.terminate()
        for process in found.processes:
            try:
                process.popen.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
