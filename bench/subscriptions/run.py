"""Fan-out measured: one event to many identical subscriptions, our API against plain Strawberry and graphql-ws.

`make bench`, or `python -m bench.subscriptions.run --help`. Each run starts a server of its own, connects every
socket, publishes through Valkey at a steady pace and counts what arrives. The servers take turns, so that they share
whatever else the machine does. The server is kept on one core and the client with the publisher on another, where
`taskset` is there.
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from core.token import Scope
from db import tokens
from db.engine import Database
from db.migrate import upgrade
from tests.graph import world
from tests.servers.postgres import free_port
from tests.servers.valkey import ValkeyServer, running_valkey

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
SOCKETS_PER_TOKEN = 20
GRACE_SECONDS = 0.5
WARMING_SOCKETS = 20
OURS, STRAWBERRY, NODE = "Model Manager", "Strawberry and broadcaster", "graphql-ws on ws"
FIGURES = ("per_cpu_second", "delivered", "p50_ms", "p99_ms", "socket_kib", "cpu")


@dataclass(frozen=True)
class Subject:
    """What a run is about. directory: holds the database and the tokens."""

    directory: Path
    valkey: ValkeyServer
    job_id: str
    fence: int

    @property
    def database_url(self) -> str:
        return f"sqlite+aiosqlite:///{self.directory}/model-manager.db"

    @property
    def tokens_file(self) -> Path:
        return self.directory / "tokens"


@dataclass(frozen=True)
class Server:
    """How a server is started, and the path of its sockets."""

    argv: list[str]
    environment: dict[str, str]
    path: str


def servers(subject: Subject, port: int) -> dict[str, Server]:
    """Say how each of them is started, each as its own documentation has it."""
    valkey_port = str(subject.valkey.port)
    settings = {
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "METRICS_PORT": "0",
        "DATABASE_URL": subject.database_url,
        "REDIS_URL": subject.valkey.url,
        "PVC_NAME": "weights",
    }
    uvicorn = [
        sys.executable, "-P", "-m", "uvicorn", "plain_strawberry:app", "--app-dir", str(HERE / "peers"),
        "--host", "127.0.0.1", "--port", str(port), "--loop", "uvloop", "--no-access-log", "--log-level", "warning",
        "--ws-per-message-deflate", "false", "--ws-ping-interval", "60", "--ws-ping-timeout", "60",
    ]  # fmt: skip
    return {
        OURS: Server(
            [sys.executable, "-m", "cli", "api"],
            {f"MODEL_MANAGER_{name}": value for name, value in settings.items()},
            "/graphql",
        ),
        STRAWBERRY: Server(uvicorn, {"VALKEY_PORT": valkey_port}, "/graphql/"),
        NODE: Server(
            ["node", str(HERE / "peers" / "graphql_ws.mjs")],
            {"PORT": str(port), "VALKEY_PORT": valkey_port, "NODE_ENV": "production"},
            "/graphql",
        ),
    }


def on_core(number: int, argv: list[str]) -> list[str]:
    """Keep a program on one core, where that can be done."""
    return ["taskset", "-c", str(number), *argv] if shutil.which("taskset") else argv


@contextmanager
def running(
    argv: list[str], environment: dict[str, str] | None = None, **pipes: int
) -> Iterator[subprocess.Popen[str]]:
    """Run a program for the length of a block."""
    given = {**os.environ, **(environment or {})}
    process = subprocess.Popen(argv, cwd=ROOT, env=given, text=True, **pipes)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def cpu_seconds(pid: int) -> float:
    """Read what a process has used so far, of its own and in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def resident_kib(pid: int) -> int:
    """Read how much memory a process holds."""
    line = next(one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmRSS:"))
    return int(line.split()[1])


def until_serving(port: int) -> None:
    """Wait until anything at all is answered."""
    for _ in range(200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"nothing answers on port {port}")


def measure(name: str, subject: Subject, *, sockets: int, rate: float, seconds: float) -> dict[str, float]:
    """Run one server once."""
    port = free_port()
    server = servers(subject, port)[name]
    client_argv = [sys.executable, "-P", str(HERE / "client.py"), str(port), server.path]
    watched = [f"Job:{subject.job_id}", str(subject.tokens_file)]
    publish_argv = [sys.executable, "-P", str(HERE / "publish.py"), str(subject.valkey.port), subject.job_id]
    publish_argv += [str(subject.fence), str(rate), str(seconds)]
    with running(on_core(0, server.argv), server.environment) as process:
        until_serving(port)
        with running(on_core(1, [*client_argv, str(WARMING_SOCKETS), *watched]), stdout=subprocess.PIPE) as warming:
            assert warming.stdout is not None
            assert warming.stdout.readline() == "READY\n", f"{name}: the first sockets could not be opened"
        time.sleep(1)
        began_kib = resident_kib(process.pid)
        with running(
            on_core(1, [*client_argv, str(sockets), *watched]), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            assert client.stdout.readline() == "READY\n", f"{name}: the sockets could not be opened"
            socket_kib = (resident_kib(process.pid) - began_kib) / sockets
            client.stdin.write("begin\n")
            client.stdin.flush()
            used, began = cpu_seconds(process.pid), time.monotonic()
            published = int(subprocess.check_output(on_core(1, publish_argv), cwd=ROOT, text=True))
            time.sleep(GRACE_SECONDS)
            used, took = cpu_seconds(process.pid) - used, time.monotonic() - began
            client.stdin.write("end\n")
            client.stdin.flush()
            report = json.loads(client.stdout.readline())
    return {
        **report,
        "per_cpu_second": report["messages"] / used,
        "delivered": report["messages"] / (published * sockets),
        "socket_kib": socket_kib,
        "cpu": used / took,
    }


async def prepare(directory: Path, *, sockets: int) -> tuple[str, int]:
    """Make a database with a job that runs, and tokens for all sockets; return the job's key and its fence."""
    database = Database(f"sqlite+aiosqlite:///{directory}/model-manager.db")
    try:
        await upgrade(database)
        needed = range(-(-sockets // SOCKETS_PER_TOKEN))
        made = [await tokens.create(database, name=f"t{one}", scope=Scope.READ, created_by="bench") for one in needed]
        (directory / "tokens").write_text("\n".join(one.secret for one in made))
        job, claim = await world.running(database)
        return str(job.id), claim.fence
    finally:
        await database.close()


def show(found: dict[str, list[dict[str, float]]]) -> None:
    """Print medians, and the ratios to ours, as a table in Markdown."""
    medians = {
        name: {one: statistics.median(run[one] for run in runs) for one in FIGURES} for name, runs in found.items()
    }
    print("\n| | messages per CPU second | ours ÷ this | delivered | p50 ms | p99 ms | KiB a socket | CPU |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, at in medians.items():
        ratio = f"{medians[OURS]['per_cpu_second'] / at['per_cpu_second']:.1f}" if OURS in medians else ""
        print(
            f"| {name} | {at['per_cpu_second']:,.0f} | {ratio} | {at['delivered']:.1%} | {at['p50_ms']:,.0f} "
            f"| {at['p99_ms']:,.0f} | {at['socket_kib']:.1f} | {at['cpu']:.0%} |"
        )
    node = subprocess.check_output(["node", "--version"], text=True).strip() if shutil.which("node") else "no node"
    packages = ", ".join(f"{one} {version(one)}" for one in ("uvicorn", "uvloop", "websockets", "strawberry-graphql"))
    print(f"\nPython {platform.python_version()}, {packages}; {node}; {os.cpu_count()} cores, {platform.machine()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sockets", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=50.0, help="events a second")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long events are published")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=["ours", "strawberry", "node"], action="append")
    given = parser.parse_args()
    names = {"ours": OURS, "strawberry": STRAWBERRY, "node": NODE}
    chosen = [names[one] for one in given.only or names]
    if NODE in chosen and not (HERE / "peers" / "node_modules").is_dir():
        raise SystemExit("Run `npm ci` in bench/subscriptions/peers first; `make bench` does so")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        job_id, fence = asyncio.run(prepare(directory, sockets=given.sockets))
        with running_valkey(directory) as valkey:
            subject = Subject(directory, valkey, job_id, fence)
            for number in range(given.runs):
                for one in chosen:
                    run = measure(one, subject, sockets=given.sockets, rate=given.rate, seconds=given.seconds)
                    found[one].append(run)
                    print(number + 1, one, {figure: round(value, 3) for figure, value in run.items()}, flush=True)
    show(found)


if __name__ == "__main__":
    main()
