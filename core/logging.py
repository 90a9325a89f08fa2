"""Log lines, as text for people or JSON for machines, on standard error."""

import logging
import sys
from datetime import UTC, datetime

import orjson
from typing_extensions import override

STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: at, level, logger, message, and whatever was passed as `extra`."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            **_extras(record),
            "at": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str).decode()
        except TypeError:  # lone surrogates, keys that are no text, numbers beyond 64 bits
            return orjson.dumps({name: _printable(str(value)) for name, value in line.items()}).decode()


class TextFormatter(logging.Formatter):
    """One line for a person: time, level, message, then the extras as name=value.

    What could end the line or steer a terminal is shown escaped; only a trace has lines of its own.
    """

    @override
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        extras = "".join(f" {name}={value}" for name, value in _extras(record).items())
        text = _printable(f"{time} {record.levelname:<7} {record.getMessage()}{extras}")
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def _printable(text: str) -> str:
    """Write what is no printable character as an escape."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def _extras(record: logging.LogRecord) -> dict[str, object]:
    """What the caller added to the line."""
    return {name: value for name, value in vars(record).items() if name not in STANDARD_FIELDS}


def configure(*, level: str, json: bool) -> None:
    """Send every logger of the process to standard error in one form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if json else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("httpx2", "httpcore2", "urllib3", "aiosqlite", "alembic", "dramatiq", "uvicorn"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
