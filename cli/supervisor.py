"""Child processes: start them, print what they say, start them again when they die, and leave none behind.

What the children are is no concern of this module; `serve.py` knows that.
"""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import TextIO

NAME_WIDTH = 6
COLOURS = (36, 33, 32, 35, 34)
LONGEST_LINE_BYTES = 32 * 1024
# A process that left its session may keep an output open for ever; its lines are not waited for longer than this.
LAST_WORDS_SECONDS = 1.0
HOPELESS_DEATHS = 3


@dataclass(frozen=True, slots=True)
class Child:
    """A program to run.

    name: how its lines are marked.
    env: its whole environment.
    muted: a line with one of these in it is not printed.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    muted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before a dead child is started again.

    forgiven_after_seconds: a child that lived this long starts from the first wait again.
    """

    first_seconds: float = 0.5
    longest_seconds: float = 30.0
    forgiven_after_seconds: float = 60.0

    def after(self, waited_seconds: float | None, *, lived_seconds: float) -> float:
        """Return the next wait from the last one; None when there was none."""
        if waited_seconds is None or lived_seconds >= self.forgiven_after_seconds:
            return self.first_seconds
        return min(waited_seconds * 2, self.longest_seconds)


class Output:
    """One stream for everybody's lines: each line whole, under the name of who says it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._coloured = stream.isatty() and "NO_COLOR" not in os.environ
        self._colours: dict[str, int] = {}

    def line(self, name: str, text: str) -> None:
        """Print one line under a name."""
        prefix = f"{name:<{NAME_WIDTH}} | "
        if self._coloured:
            colour = self._colours.setdefault(name, COLOURS[len(self._colours) % len(COLOURS)])
            prefix = f"\x1b[{colour}m{prefix}\x1b[0m"
        self.plain(prefix + text)

    def plain(self, text: str) -> None:
        """Print text as it is. Who does not listen any more is no reason to stop working."""
        encoding = self._stream.encoding or "utf-8"
        try:
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
            self._stream.flush()
        except OSError:
            self._discard()

    def _discard(self) -> None:
        """Send this line and all further ones nowhere; otherwise the interpreter fails on them when it ends."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


class Supervisor:
    """Keeps children running until it is told to stop them.

    Every child leads a session of its own, so a Ctrl-C in the terminal does not reach it, and has a pipe as standard
    input that ends when this process ends (see `lifeline.py`).
    """

    def __init__(self, output: Output, *, backoff: Backoff | None = None) -> None:
        self._output = output
        self._backoff = backoff or Backoff()
        self._keepers: dict[str, _Keeper] = {}
        self._misconfigured: Counter[str] = Counter()
        self._hopeless: asyncio.Queue[str] = asyncio.Queue()
        self._may_give_up = True

    def start(self, child: Child) -> None:
        """Run a child, again and again, until it is stopped."""
        self._keep(child, backoff=self._backoff)

    async def run_once(self, child: Child) -> int:
        """Run a child to its end and return its exit code. Cancelled, it leaves the child to `stop`."""
        code = await asyncio.shield(self._keep(child, backoff=None).task)
        del self._keepers[child.name]
        return code

    async def stop(self, *names: str, grace_seconds: float = 10.0) -> None:
        """Ask the named children to stop (all without names), and kill those that have not by the end of the grace."""
        stopping = [keeper for name, keeper in self._keepers.items() if not names or name in names]
        await asyncio.gather(*(keeper.stop(grace_seconds=grace_seconds) for keeper in stopping))
        for keeper in stopping:
            self._keepers.pop(keeper.child.name, None)

    def kill(self) -> None:
        """End every child at once; `stop` is still to be awaited."""
        for keeper in self._keepers.values():
            keeper.kill()

    async def gave_up(self) -> str:
        """Wait for a child that cannot start as it is configured and return its name."""
        return await self._hopeless.get()

    def never_give_up(self) -> None:
        """Start children again whatever they die of: what worked once is worth waiting for."""
        self._may_give_up = False

    def _keep(self, child: Child, *, backoff: Backoff | None) -> "_Keeper":
        """Start keeping a child under its name."""
        assert child.name not in self._keepers
        keeper = _Keeper(child, output=self._output, backoff=backoff, is_hopeless=self._is_hopeless)
        self._keepers[child.name] = keeper
        return keeper

    def _is_hopeless(self, name: str, code: int) -> bool:
        """Count a death, and give up on a child that said several times that its configuration is wrong."""
        if code != os.EX_CONFIG or not self._may_give_up:
            return False
        self._misconfigured[name] += 1
        if self._misconfigured[name] < HOPELESS_DEATHS:
            return False
        self._hopeless.put_nowait(name)
        return True


class _Keeper:
    """One child and its task: alive, waiting to be started again, or stopped.

    backoff: None runs the child once.
    is_hopeless: told of each death; tells whether to leave it at that.
    """

    def __init__(
        self, child: Child, *, output: Output, backoff: Backoff | None, is_hopeless: Callable[[str, int], bool]
    ) -> None:
        self.child = child
        self._output = output
        self._backoff = backoff
        self._is_hopeless = is_hopeless
        self._stopping = asyncio.Event()
        self._process: _Process | None = None
        self.task = asyncio.create_task(self._keep(), name=f"keep {child.name}")

    async def stop(self, *, grace_seconds: float) -> None:
        """Ask the child to stop, wait for it, and kill it when the grace is over."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        _, late = await asyncio.wait({self.task}, timeout=grace_seconds)
        if late:
            self._say(f"did not stop within {grace_seconds:g} s and is killed")
            self.kill()
        await self.task

    def kill(self) -> None:
        """End the child and all of its own children now."""
        self._stopping.set()
        if self._process is not None:
            self._process.kill()

    async def _keep(self) -> int:
        """Run the child until it is stopped or hopeless and return its last exit code."""
        loop = asyncio.get_running_loop()
        wait_seconds: float | None = None
        code = 0
        while not self._stopping.is_set():
            started = loop.time()
            code = await self._run()
            if self._stopping.is_set() or self._backoff is None:
                break
            if self._is_hopeless(self.child.name, code):
                self._say(describe_exit(code))
                break
            wait_seconds = self._backoff.after(wait_seconds, lived_seconds=loop.time() - started)
            self._say(f"{describe_exit(code)}; started again in {wait_seconds:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait_seconds)
        return code

    async def _run(self) -> int:
        """Run the child once and return its exit code."""
        try:
            self._process = await _start(self.child, output=self._output)
        except OSError as error:
            self._say(f"cannot be started: {error.strerror or error}")
            return os.EX_OSERR
        if self._stopping.is_set():  # while it was being started
            self._signal(signal.SIGTERM)
        try:
            return await self._process.wait()
        finally:
            self._process = None

    def _signal(self, number: signal.Signals) -> None:
        """Send the child a signal if it runs."""
        if self._process is not None:
            self._process.signal(number)

    def _say(self, text: str) -> None:
        """Print a line of the supervisor about the child."""
        self._output.line("serve", f"{self.child.name} {text}")


class _Process:
    """A started child: its process, its lifeline and the tasks that print what it says.

    The pipes are our own because asyncio's would make `wait` last until the last grandchild closes them.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, *, lifeline: int, printers: set[asyncio.Task[None]]
    ) -> None:
        self._process = process
        self._lifeline = lifeline
        self._printers = printers

    async def wait(self) -> int:
        """Wait for the end of the child, of what it has started and of their lines; return the exit code."""
        try:
            code = await self._process.wait()
            self._signal_group()
            await asyncio.wait(self._printers, timeout=LAST_WORDS_SECONDS)
            return code
        finally:
            os.close(self._lifeline)
            for printer in self._printers:
                printer.cancel()
            await asyncio.gather(*self._printers, return_exceptions=True)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the child alone: it looks after its own children.

        By `os.kill`: asyncio's `send_signal` may take the exit code away from whoever waits for it.
        """
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End the child and whatever it has started."""
        if self._process.returncode is None:
            self._signal_group()

    def _signal_group(self) -> None:
        """Kill the child's process group, which has its pid as its name."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


async def _start(child: Child, *, output: Output) -> _Process:
    """Start a child with a lifeline as its standard input and a pipe for each of its outputs."""
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
        stdin, lifeline = _pipe(reader=theirs, writer=ours)
        stdout_reader, stdout = _pipe(reader=ours, writer=theirs)
        stderr_reader, stderr = _pipe(reader=ours, writer=theirs)
        process = await asyncio.create_subprocess_exec(
            *child.argv, env=child.env, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
        )
        ours.pop_all()
    printers = {
        asyncio.create_task(_print_lines(reader, child=child, output=output))
        for reader in (stdout_reader, stderr_reader)
    }
    return _Process(process, lifeline=lifeline, printers=printers)


def _pipe(*, reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    """Open a pipe whose two ends are closed with these stacks."""
    ends = os.pipe()
    reader.callback(os.close, ends[0])
    writer.callback(os.close, ends[1])
    return ends


async def _print_lines(fd: int, *, child: Child, output: Output) -> None:
    """Print what comes out of a pipe, line by line, until it ends."""
    stream = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(fd, "rb", buffering=0)
    )
    try:
        async for line in read_lines(stream):
            if not any(muted in line for muted in child.muted):
                output.line(child.name, line)
    finally:
        transport.close()


async def read_lines(stream: asyncio.StreamReader, *, longest_bytes: int = LONGEST_LINE_BYTES) -> AsyncIterator[str]:
    """Yield the lines of a stream as text; one longer than `longest_bytes` comes in pieces."""
    rest = b""
    while chunk := await stream.read(longest_bytes):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            for piece in _pieces(line, longest_bytes):
                yield piece
        while len(rest) > longest_bytes:
            yield _text(rest[:longest_bytes])
            rest = rest[longest_bytes:]
    if rest:
        yield _text(rest)


def _pieces(line: bytes, size_bytes: int) -> list[str]:
    """Cut a line; an empty one is one piece."""
    return [_text(line[start : start + size_bytes]) for start in range(0, max(len(line), 1), size_bytes)]


def _text(line: bytes) -> str:
    """Decode what may be no text at all."""
    return line.decode("utf-8", "replace").rstrip("\r")


def describe_exit(code: int) -> str:
    """Say how a process ended: asyncio gives a signal as a negative code."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
