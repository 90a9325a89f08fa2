"""Log lines: one for each event, whatever was put into it."""

import logging
import sys
from datetime import UTC, datetime

import orjson
import pytest

from core.logging import JsonFormatter, TextFormatter, configure


def record(message: str = "job started", **extra: object) -> logging.LogRecord:
    made = logging.getLogger("actors.runner").makeRecord(
        "actors.runner", logging.INFO, __file__, 1, message, (), None, extra=extra
    )
    made.created = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC).timestamp()
    return made


def failed_record(message: str) -> logging.LogRecord:
    made = record()
    try:
        raise ValueError(message)  # noqa: TRY301 - the trace is what is wanted
    except ValueError:
        made.exc_info = sys.exc_info()
    return made


def test_a_json_line_is_one_object() -> None:
    line = orjson.loads(JsonFormatter().format(record(job="1", bytes=5)))

    assert line == {
        "at": "2026-01-02T03:04:05.678000+00:00",
        "level": "INFO",
        "logger": "actors.runner",
        "message": "job started",
        "job": "1",
        "bytes": 5,
    }


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a\nb", "a\nb"),
        ("a\ud800", "a\\ud800"),
        (2**70, str(2**70)),
        ({("a", "b"): 1}, "{('a', 'b'): 1}"),
        (object, "<class 'object'>"),
        (float("nan"), None),
    ],
    ids=["lines", "surrogate", "big", "keys", "class", "nan"],
)
def test_a_json_line_is_written_whatever_it_carries(value: object, shown: object) -> None:
    text = JsonFormatter().format(record(value=value))

    line = orjson.loads(text)
    assert (line["value"], line["message"], line["level"]) == (shown, "job started", "INFO")
    assert "\n" not in text


def test_an_extra_does_not_hide_what_every_line_has() -> None:
    line = orjson.loads(JsonFormatter().format(record(level="none", at="never", logger="nobody")))

    assert (line["level"], line["logger"], line["at"][:10]) == ("INFO", "actors.runner", "2026-01-02")


def test_a_json_line_carries_its_trace() -> None:
    line = orjson.loads(JsonFormatter().format(failed_record("wrong\ud800")))

    assert line["trace"].startswith("Traceback")
    assert "ValueError: wrong" in line["trace"]


def test_a_text_line_is_time_level_message_and_extras() -> None:
    assert TextFormatter().format(record(job="1", bytes=5)) == "03:04:05.678 INFO    job started job=1 bytes=5"


def test_a_text_line_is_one_line_and_steers_no_terminal() -> None:
    line = TextFormatter().format(record("a\nb", job="x\r\n03:04:05.678 ERROR forged", sign="\x1b[2J\u202e\ud800ü"))

    assert line == ("03:04:05.678 INFO    a\\nb job=x\\r\\n03:04:05.678 ERROR forged sign=\\x1b[2J\\u202e\\ud800ü")


def test_a_text_line_is_followed_by_its_trace() -> None:
    first, second, *rest = TextFormatter().format(failed_record("wrong")).splitlines()

    assert first == "03:04:05.678 INFO    job started"
    assert second == "Traceback (most recent call last):"
    assert rest[-1] == "ValueError: wrong"


def test_configured_logging_goes_to_standard_error_and_leaves_out_what_is_noisy(
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    noisy = {name: logging.getLogger(name).level for name in ("urllib3", "httpx2", "httpcore2", "aiosqlite", "alembic")}
    noisy |= {name: logging.getLogger(name).level for name in ("dramatiq", "uvicorn")}
    try:
        configure(level="debug", json=True)
        logging.getLogger("core.test").debug("said")
        logging.getLogger("urllib3.connectionpool").info("unsaid")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        for name, before in noisy.items():
            logging.getLogger(name).setLevel(before)

    said = capsys.readouterr()
    assert said.out == ""
    assert [orjson.loads(line)["message"] for line in said.err.splitlines()] == ["said"]
