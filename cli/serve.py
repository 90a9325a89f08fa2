"""`model-manager serve`: everything on one machine, each process as in production and under one supervisor.

What this adds to production is a Valkey, a SQLite file and free choice of ports; the processes are the same.
"""

import asyncio
import contextlib
import errno
import os
import signal
import site
import socket
import sys
from collections.abc import Coroutine
from pathlib import Path

from pydantic import SecretStr

from cli import lifeline, state, valkey
from cli.supervisor import Child, Output, Supervisor
from cli.token import ensure_first_admin_token
from core.errors import SettingsError
from core.settings import PREFIX, Settings

PROCESSES = ("api", "worker", "sync")
STOP_SECONDS = 10.0
# What a killed `serve` left behind stops by itself within this time and lets its ports go.
LEFTOVER_SECONDS = 12.0
POLL_SECONDS = 0.1
NEWS_SECONDS = 30.0
LAST_PORT = 65535
EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound to


def run(settings: Settings) -> int:
    """Serve until a signal comes and return the exit code: 0 after a clean stop, 1 when it cannot be started."""
    output = Output(sys.stderr)
    try:
        state_dir = state.prepare(settings.state_dir)
        with state.hold(state_dir) as left_by:
            patience_seconds = LEFTOVER_SECONDS if left_by else 0.0
            return asyncio.run(_serve(settings, state_dir=state_dir, output=output, patience_seconds=patience_seconds))
    except SettingsError as error:
        for line in str(error).splitlines():
            output.line("serve", line)
        return 1
    except KeyboardInterrupt:  # before there was anything to stop
        return 0


async def _serve(settings: Settings, *, state_dir: Path, output: Output, patience_seconds: float) -> int:
    """Bring everything up, wait for a signal, and stop everything in order."""
    supervisor = Supervisor(output)
    signals = _Signals(supervisor, output=output)
    signals.listen()
    with contextlib.ExitStack() as places:
        try:
            bringing_up = _bring_up(
                _settle(settings, state_dir=state_dir),
                supervisor=supervisor,
                output=output,
                places=places,
                patience_seconds=patience_seconds,
            )
            code = await _first_of(bringing_up, signals.asked())
        finally:
            await supervisor.stop("migrate", *PROCESSES, grace_seconds=STOP_SECONDS)
            await supervisor.stop(grace_seconds=STOP_SECONDS)
    output.line("serve", "stopped")
    return signals.exit_code or code


class _Signals:
    """Makes the first SIGINT, SIGTERM or SIGHUP a clean stop and the second one an immediate one."""

    def __init__(self, supervisor: Supervisor, *, output: Output) -> None:
        self._supervisor = supervisor
        self._output = output
        self._asked = asyncio.Event()
        self.exit_code = 0

    def listen(self) -> None:
        """Take the signals from now on; a SIGHUP that `nohup` ignores stays ignored."""
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        for number in numbers:
            asyncio.get_running_loop().add_signal_handler(number, self._take, number)

    async def asked(self) -> int:
        """Wait for the first signal and return the exit code of a clean stop."""
        await self._asked.wait()
        return 0

    def _take(self, number: signal.Signals) -> None:
        """Stop cleanly or, the second time, at once."""
        if not self._asked.is_set():
            self._output.line("serve", f"{number.name}: stopping (once more: at once)")
            self._asked.set()
            return
        self.exit_code = 128 + number
        self._supervisor.kill()


async def _first_of(*works: Coroutine[object, None, int]) -> int:
    """Return what the first of several works returns, and cancel the others."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _bring_up(
    settings: Settings,
    *,
    supervisor: Supervisor,
    output: Output,
    places: contextlib.ExitStack,
    patience_seconds: float,
) -> int:
    """Start everything in order, and stay.

    Raises: SettingsError when something cannot be started as it is configured.
    """
    await _wait_for_ports(settings, output=output, patience_seconds=patience_seconds)
    if settings.redis_url is None:
        redis_url = await _start_valkey(settings.state_dir, supervisor=supervisor, places=places)
        settings = settings.model_copy(update={"redis_url": redis_url})
    await _migrate(settings, supervisor=supervisor)
    for offset, name in enumerate(PROCESSES):
        supervisor.start(_child(name, settings=settings, metrics_offset=offset))
    ready = _announce(settings, supervisor=supervisor, output=output)
    return await _first_of(ready, _fail_with_hopeless(supervisor))


async def _start_valkey(state_dir: Path, *, supervisor: Supervisor, places: contextlib.ExitStack) -> str:
    """Start the embedded Valkey, wait until it answers, and return its URL."""
    await valkey.end_orphan(state_dir)
    socket_path = places.enter_context(valkey.place_socket(state_dir))
    supervisor.start(valkey.child(socket_path, directory=state_dir))
    await valkey.wait_until_answers(socket_path)
    return valkey.url(socket_path)


async def _migrate(settings: Settings, *, supervisor: Supervisor) -> None:
    """Bring the database up to date, in a process of its own so that its lines look like everybody's."""
    code = await supervisor.run_once(_child("migrate", settings=settings, metrics_offset=0))
    if code:
        raise SettingsError(f"The database cannot be brought up to date (exit code {code}): the lines above say why")


async def _fail_with_hopeless(supervisor: Supervisor) -> int:
    """Wait for a child that will never start.

    Raises: SettingsError naming it.
    """
    name = await supervisor.gave_up()
    raise SettingsError(f"{name} cannot start as it is configured: its lines above say why")


async def _announce(settings: Settings, *, supervisor: Supervisor, output: Output) -> int:
    """Say where everything is as soon as it is there, and stay.

    The first token is made only now: made earlier, it would be lost with a start that fails.
    """
    await _wait_until_healthy(settings, output=output)
    supervisor.never_give_up()
    token = await asyncio.to_thread(ensure_first_admin_token, settings)
    Output(sys.stdout).plain(banner(settings, token=token))
    await asyncio.Event().wait()
    return 0


async def _wait_until_healthy(settings: Settings, *, output: Output) -> None:
    """Wait until the API answers."""
    host, port = _reachable(settings.host), settings.port
    loop = asyncio.get_running_loop()
    next_news = loop.time() + NEWS_SECONDS
    while not await _is_healthy(host, port=port):
        await asyncio.sleep(POLL_SECONDS)
        if loop.time() >= next_news:
            output.line("serve", f"the API does not answer on {_address(host, port=port)} yet")
            next_news += NEWS_SECONDS


async def _is_healthy(host: str, *, port: int) -> bool:
    """Ask `/healthz` once."""
    try:
        async with asyncio.timeout(2.0):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                return (await reader.readline()).split()[1:2] == [b"200"]
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except OSError:
        return False


TOKEN_HINT = "as set or shown before; `python -m cli token create NAME --scope ADMIN` makes another"  # noqa: S105


def banner(settings: Settings, *, token: str | None) -> str:
    """Return what a person wants to know at the start."""
    address = _address(_reachable(settings.host), port=settings.port)
    rows = [
        ("GraphQL", f"{address}/graphql"),
        ("GraphiQL", f"{address}/graphiql/"),
        ("Admin token", f"{token}   (shown this once)" if token else TOKEN_HINT),
        ("State", str(settings.state_dir)),
    ]
    lines = (f"  {name:<11}  {value}" for name, value in rows)
    return "\n".join(("", "Model Manager is ready.", *lines, ""))


def _reachable(host: str) -> str:
    """Return an address to call for one to listen on."""
    return EVERYWHERE.get(host, host)


def _address(host: str, *, port: int) -> str:
    """Return the URL of a host and port."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _child(name: str, *, settings: Settings, metrics_offset: int) -> Child:
    """Return one of our processes as a child to supervise.

    metrics_offset: what is added to the metrics port; 0 as a port stays 0.
    """
    metrics_port = settings.metrics_port + metrics_offset if settings.metrics_port else 0
    settings = settings.model_copy(update={"metrics_port": metrics_port})
    # -P: a directory named `core` or `db` where somebody happens to be must not stand in for ours.
    return Child(name, argv=(sys.executable, "-P", "-m", "cli", name), env=environment(settings))


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a child: ours, with these settings in the place of those that were read."""
    values = {PREFIX + name.upper(): getattr(settings, name) for name in Settings.model_fields}
    inherited = {name: value for name, value in os.environ.items() if name.upper() not in values}
    return {
        **inherited,
        **{name: _plain(value) for name, value in values.items() if value is not None},
        "PYTHONPATH": _python_path(inherited.get("PYTHONPATH")),
        "PYTHONUNBUFFERED": "1",
        lifeline.VARIABLE: "1",
    }


def _plain(value: object) -> str:
    """Return a setting as it is written in the environment."""
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _python_path(inherited: str | None) -> str:
    """Return where children find these packages: in a checkout they need not be installed."""
    root = str(Path(__file__).resolve().parent.parent)
    own = [] if root in site.getsitepackages() else [root]
    return os.pathsep.join([*own, *([inherited] if inherited else [])])


def _settle(settings: Settings, *, state_dir: Path) -> Settings:
    """Return the settings with everything decided that was left open, apart from Valkey."""
    return settings.model_copy(
        update={
            "state_dir": state_dir,
            "weights_dir": settings.weights,
            "database_url": settings.database,
            "port": settings.port or _free_port(settings),
        }
    )


async def _wait_for_ports(settings: Settings, *, output: Output, patience_seconds: float) -> None:
    """Check that the ports are free, with some patience for the processes of a `serve` that was killed.

    Raises: SettingsError naming the variable of a port that cannot be had.
    """
    for attempt in range(round(patience_seconds / POLL_SECONDS)):
        with contextlib.suppress(SettingsError):
            _check_ports(settings)
            return
        if attempt == 0:
            output.line("serve", "an earlier serve was killed: waiting until its processes have stopped")
        await asyncio.sleep(POLL_SECONDS)
    _check_ports(settings)


def _metrics_ports(settings: Settings) -> range:
    """Return the metrics ports of our processes; none when they are off."""
    first = settings.metrics_port
    return range(first, first + len(PROCESSES)) if first else range(0)


def _free_port(settings: Settings) -> int:
    """Let the system choose a port that is none of the metrics ports."""
    while (port := _bind(settings.host, port=0, variable="PORT")) in _metrics_ports(settings):
        pass
    return port


def _check_ports(settings: Settings) -> None:
    """Refuse ports that are taken, out of range or asked for twice, before anything is started."""
    metrics_ports = _metrics_ports(settings)
    if settings.port in metrics_ports:
        raise SettingsError(
            f"{PREFIX}METRICS_PORT is not usable: `serve` takes {metrics_ports[0]} to {metrics_ports[-1]} for metrics,"
            f" and {settings.port} is {PREFIX}PORT"
        )
    if metrics_ports and metrics_ports[-1] > LAST_PORT:
        raise SettingsError(
            f"{PREFIX}METRICS_PORT is not usable: `serve` takes it and the next two, so {LAST_PORT - 2} is the last"
        )
    _bind(settings.host, port=settings.port, variable="PORT")
    for port in metrics_ports:
        _bind(settings.host, port=port, variable="METRICS_PORT")


def _bind(host: str, *, port: int, variable: str) -> int:
    """Try to listen on every address of a host and let go again; return the port.

    Raises: SettingsError naming the variable at fault.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind(address)
                port = listener.getsockname()[1]
    except (OSError, UnicodeError) as error:
        raise SettingsError(_bind_sentence(error, host=host, port=port, variable=variable)) from None
    return port


def _bind_sentence(error: OSError | UnicodeError, *, host: str, port: int, variable: str) -> str:
    """Say why an address cannot be listened on."""
    if isinstance(error, (socket.gaierror, UnicodeError)) or error.errno == errno.EADDRNOTAVAIL:
        return f"{PREFIX}HOST is not usable: {host} is no address of this machine"
    if error.errno == errno.EADDRINUSE:
        return f"{PREFIX}{variable} is not usable: port {port} on {host} is in use by another program"
    return f"{PREFIX}{variable} is not usable: port {port} on {host} cannot be had ({error.strerror})"
