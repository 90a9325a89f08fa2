"""Children and their keeper: real processes, each of a line or two."""

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from io import StringIO
from pathlib import Path

import pytest

from cli.supervisor import Backoff, Child, Output, Supervisor, describe_exit, read_lines

ROOT = Path(__file__).parents[2]
QUICK = Backoff(first_seconds=0.02, longest_seconds=0.08)


def shell(script: str, *, name: str = "api") -> Child:
    return Child(name, argv=("/bin/sh", "-c", script), env=dict(os.environ))


def python(script: str, *, name: str = "api") -> Child:
    return Child(name, argv=(sys.executable, "-c", script), env={**os.environ, "PYTHONPATH": str(ROOT)})


@contextlib.asynccontextmanager
async def supervising(*children: Child, backoff: Backoff = QUICK) -> AsyncIterator[tuple[Supervisor, StringIO]]:
    """Run children; yield their supervisor and what is printed."""
    stream = StringIO()
    supervisor = Supervisor(Output(stream), backoff=backoff)
    for child in children:
        supervisor.start(child)
    try:
        yield supervisor, stream
    finally:
        await supervisor.stop(grace_seconds=0.5)


async def printed(stream: StringIO, text: str, *, times: int = 1) -> list[str]:
    """Wait until a text was printed so often and return all lines so far."""
    async with asyncio.timeout(10):
        while stream.getvalue().count(text) < times:  # noqa: ASYNC110 - a StringIO has no event
            await asyncio.sleep(0.01)
    return stream.getvalue().splitlines()


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that nobody has waited for does not."""
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def ended(*pids: int) -> None:
    """Wait until none of these processes runs: the system takes a moment after the signal."""
    async with asyncio.timeout(5):
        while any(is_alive(pid) for pid in pids):  # noqa: ASYNC110 - another process has no event
            await asyncio.sleep(0.01)


def is_locked(path: Path) -> bool:
    """Tell whether some process holds the lock of a file."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


async def test_lines_of_both_outputs_are_printed_under_the_childs_name() -> None:
    async with supervising(shell("echo one; echo two >&2; sleep 60", name="worker")) as (_, stream):
        await printed(stream, "one")
        lines = await printed(stream, "two")

    assert sorted(lines) == ["worker | one", "worker | two"]


async def test_lines_of_several_children_are_never_mixed() -> None:
    scripts = {name: f"import sys; [print('{name}' * 2000) for _ in range(200)]" for name in ("ab", "cd", "ef")}
    stream = StringIO()
    supervisor = Supervisor(Output(stream))

    codes = await asyncio.gather(*(supervisor.run_once(python(script, name=name)) for name, script in scripts.items()))

    lines = stream.getvalue().splitlines()
    assert codes == [0, 0, 0]
    assert {line: lines.count(line) for line in set(lines)} == {f"{name:<6} | {name * 2000}": 200 for name in scripts}


async def test_a_last_line_without_an_end_is_printed() -> None:
    stream = StringIO()

    await Supervisor(Output(stream)).run_once(shell("printf 'no end'"))

    assert stream.getvalue() == "api    | no end\n"


async def test_bytes_that_are_no_text_are_replaced() -> None:
    stream = StringIO()

    await Supervisor(Output(stream)).run_once(shell(r"printf 'a\377b\r\n'"))

    assert stream.getvalue() == "api    | a\N{REPLACEMENT CHARACTER}b\n"


@pytest.mark.parametrize(
    ("fed", "lines"),
    [
        (b"abcdefghij\nk\n", ["abcd", "efgh", "ij", "k"]),
        (b"abcdefghij", ["abcd", "efgh", "ij"]),
        (b"\n\na\n", ["", "", "a"]),
        (b"abcd\nefgh\n", ["abcd", "efgh"]),
        (b"", []),
    ],
)
async def test_a_long_line_comes_in_pieces(fed: bytes, lines: list[str]) -> None:
    stream = asyncio.StreamReader()
    stream.feed_data(fed)
    stream.feed_eof()

    assert [line async for line in read_lines(stream, longest_bytes=4)] == lines


async def test_muted_lines_are_not_printed() -> None:
    stream = StringIO()
    child = Child("api", argv=("/bin/sh", "-c", "echo noise 1; echo word"), env={}, muted=("noise",))

    await Supervisor(Output(stream)).run_once(child)

    assert stream.getvalue() == "api    | word\n"


async def test_names_are_coloured_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal, file = Terminal(), StringIO()

    for stream in (terminal, file):
        output = Output(stream)
        output.line("api", "hello")
        output.line("sync", "hello")

    assert file.getvalue() == "api    | hello\nsync   | hello\n"
    assert terminal.getvalue() == "\x1b[36mapi    | \x1b[0mhello\n\x1b[33msync   | \x1b[0mhello\n"


def test_a_reader_that_has_gone_does_not_stop_the_output() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        output = Output(stream)

        output.line("api", "one")
        output.line("api", "two")


async def test_a_killed_child_is_started_again_and_that_is_said() -> None:
    async with supervising(shell("echo $$; exec sleep 60")) as (_, stream):
        first = int((await printed(stream, "api    | "))[0].split()[-1])
        os.kill(first, signal.SIGKILL)

        lines = await printed(stream, "api    | ", times=2)

    assert lines[1] == "serve  | api was ended by SIGKILL; started again in 0.02 s"
    assert lines[2] != lines[0]


async def test_the_wait_doubles_up_to_the_longest() -> None:
    async with supervising(shell("exit 3")) as (_, stream):
        lines = await printed(stream, "exited", times=5)

    assert [line.removeprefix("serve  | api exited with code 3; started again in ") for line in lines[:5]] == [
        "0.02 s",
        "0.04 s",
        "0.08 s",
        "0.08 s",
        "0.08 s",
    ]


def test_a_child_that_lived_long_starts_from_the_first_wait() -> None:
    backoff = Backoff()

    assert backoff.after(None, lived_seconds=0) == 0.5
    assert backoff.after(0.5, lived_seconds=59) == 1.0
    assert backoff.after(16.0, lived_seconds=1) == 30.0
    assert backoff.after(30.0, lived_seconds=1) == 30.0
    assert backoff.after(30.0, lived_seconds=60) == 0.5


async def test_a_program_that_is_not_there_is_said_and_tried_again() -> None:
    async with supervising(Child("api", argv=("/nowhere/at/all",), env={})) as (_, stream):
        lines = await printed(stream, "started again", times=2)

    assert lines[0] == "serve  | api cannot be started: No such file or directory"


async def test_what_a_dead_child_had_started_is_ended_before_the_next() -> None:
    async with supervising(shell("sleep 60 & echo $!; sleep 0.2; exit 1")) as (_, stream):
        lines = await printed(stream, "api    | ", times=2)

        await ended(int(lines[0].split()[-1]))


async def test_a_child_that_says_three_times_that_it_is_misconfigured_is_given_up() -> None:
    async with supervising(shell("exit 78", name="sync")) as (supervisor, stream):
        async with asyncio.timeout(5):
            name = await supervisor.gave_up()

        await asyncio.sleep(0.1)
        assert name == "sync"
        assert stream.getvalue().splitlines() == [
            "serve  | sync exited with code 78; started again in 0.02 s",
            "serve  | sync exited with code 78; started again in 0.04 s",
            "serve  | sync exited with code 78",
        ]


async def test_nothing_is_given_up_once_everything_has_worked() -> None:
    async with supervising(shell("exit 78", name="sync")) as (supervisor, stream):
        supervisor.never_give_up()
        await printed(stream, "sync exited with code 78", times=5)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(supervisor.gave_up(), 0.01)


async def test_other_deaths_are_no_reason_to_give_up() -> None:
    async with supervising(shell("exit 1")) as (supervisor, stream):
        await printed(stream, "exited with code 1", times=5)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(supervisor.gave_up(), 0.01)


async def test_stop_ends_all_children_at_once_and_starts_none_again() -> None:
    script = "trap 'sleep 0.5; echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    names = ("api", "worker", "sync")
    async with supervising(*(shell(script, name=name) for name in names)) as (supervisor, stream):
        await printed(stream, "up", times=3)
        started = time.monotonic()

        await supervisor.stop(grace_seconds=5)

        assert time.monotonic() - started < 0.5 * 3
        assert sorted(stream.getvalue().splitlines()[3:]) == ["api    | bye", "sync   | bye", "worker | bye"]


async def test_a_child_that_ignores_sigterm_is_killed_with_its_own_children() -> None:
    script = "trap '' TERM; sleep 60 & echo $!; echo $$; while :; do sleep 0.05; done"
    async with supervising(shell(script)) as (supervisor, stream):
        pids = [int(line.split()[-1]) for line in await printed(stream, "api    | ", times=2)]

        await supervisor.stop(grace_seconds=0.2)

        assert stream.getvalue().splitlines()[2:] == ["serve  | api did not stop within 0.2 s and is killed"]
        await ended(*pids)


async def test_kill_ends_a_stop_that_takes_its_time() -> None:
    script = "trap '' TERM; echo up; while :; do sleep 0.05; done"
    async with supervising(shell(script)) as (supervisor, stream):
        await printed(stream, "up")
        started = time.monotonic()

        stopping = asyncio.create_task(supervisor.stop(grace_seconds=30))
        await asyncio.sleep(0.1)
        supervisor.kill()
        await stopping

        assert time.monotonic() - started < 5
        assert stream.getvalue() == "api    | up\n"


async def test_named_children_are_stopped_and_the_others_stay() -> None:
    children = (shell("echo up; exec sleep 60", name=name) for name in ("api", "valkey"))
    async with supervising(*children) as (supervisor, stream):
        await printed(stream, "up", times=2)

        await supervisor.stop("api", "unknown")
        await supervisor.stop("api")
        supervisor.start(shell("echo second; exec sleep 60", name="api"))
        await printed(stream, "api    | second")

        assert "valkey was ended" not in stream.getvalue()


async def test_a_child_that_waits_to_be_started_again_is_stopped_at_once() -> None:
    async with supervising(shell("exit 1"), backoff=Backoff(first_seconds=60)) as (supervisor, stream):
        await printed(stream, "started again in 60 s")

        async with asyncio.timeout(1):
            await supervisor.stop()


async def test_a_child_is_stopped_even_while_it_is_being_started() -> None:
    async with supervising(shell("exec sleep 60")) as (supervisor, stream):
        async with asyncio.timeout(5):
            await supervisor.stop(grace_seconds=30)

    assert stream.getvalue() == ""


async def test_a_child_run_once_gives_its_exit_code() -> None:
    supervisor = Supervisor(Output(StringIO()))

    assert await supervisor.run_once(shell("exit 7")) == 7
    assert await supervisor.run_once(shell("kill -TERM $$")) == -signal.SIGTERM


async def test_a_child_run_once_is_stopped_with_the_others_when_its_waiter_is_cancelled() -> None:
    async with supervising() as (supervisor, stream):
        waiter = asyncio.create_task(supervisor.run_once(shell("echo $$; exec sleep 60", name="migrate")))
        pid = int((await printed(stream, "migrate | "))[0].split()[-1])

        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        assert is_alive(pid)
        await supervisor.stop()

        await ended(pid)


async def test_a_child_leads_a_session_of_its_own() -> None:
    script = "import os; print(os.getsid(0) == os.getpid() == os.getpgid(0))"
    stream = StringIO()

    await Supervisor(Output(stream)).run_once(python(script))

    assert stream.getvalue() == "api    | True\n"


def test_kill_9_of_the_supervisor_ends_its_children(tmp_path: Path) -> None:
    child = f"""
import fcntl, time
from cli import lifeline
lock = open({str(tmp_path / "lock")!r}, "w")
fcntl.flock(lock, fcntl.LOCK_EX)
lifeline.watch()
print("up", flush=True)
time.sleep(60)
"""
    script = f"""
import asyncio, os, sys
from cli.supervisor import Child, Output, Supervisor
async def main():
    Supervisor(Output(sys.stdout)).start(Child("api", (sys.executable, "-c", {child!r}), os.environ))
    await asyncio.sleep(60)
asyncio.run(main())
"""
    supervisor = python(script)
    with subprocess.Popen(supervisor.argv, env=supervisor.env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "api    | up\n"
        assert is_locked(tmp_path / "lock")

        process.kill()

    deadline = time.monotonic() + 5
    while is_locked(tmp_path / "lock") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_locked(tmp_path / "lock")


@pytest.mark.parametrize(
    ("on_term", "code"),
    [("signal.SIG_DFL", -signal.SIGTERM), ("lambda *_: sys.exit(0)", 0), ("signal.SIG_IGN", 1)],
)
def test_the_end_of_the_lifeline_stops_a_process_cleanly_or_else_hard(on_term: str, code: int) -> None:
    child = python(f"""
import signal, sys, time
from cli import lifeline
signal.signal(signal.SIGTERM, {on_term})
lifeline.watch(grace_seconds=0.2)
print("up", flush=True)
time.sleep(60)
""")
    with subprocess.Popen(
        child.argv, env=child.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"

        process.stdin.close()

        assert process.wait(5) == code


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (0, "exited with code 0"),
        (78, "exited with code 78"),
        (-signal.SIGSEGV, "was ended by SIGSEGV"),
        (-250, "was ended by signal 250"),
    ],
)
def test_an_exit_is_said_in_words(code: int, sentence: str) -> None:
    assert describe_exit(code) == sentence
