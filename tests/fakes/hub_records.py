"""What the fake Hub did: requests with their answers, body bytes per file, and requests per rate-limit bucket."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from tests.fakes.hub_faults import Place

RECORDED_HEADERS = frozenset(
    {"authorization", "range", "if-range", "if-none-match", "accept-encoding", "host", "user-agent"}
)
WINDOW_SECONDS = 300


@dataclass(frozen=True)
class RequestRecord:
    """One request and the status it was answered with."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    """Only RECORDED_HEADERS, names in lower case."""
    status: int
    at: Place
    repo_id: str | None
    file: str | None


class Records:
    """Requests and served bytes of one hub; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: list[RequestRecord] = []
        self._bytes: dict[tuple[str, str], int] = {}

    def add_request(self, record: RequestRecord) -> None:
        """Note one request at the moment its status is sent."""
        with self._lock:
            self._requests.append(record)

    def add_bytes(self, repo_id: str, path: str, count: int) -> None:
        """Note body bytes of a file at the moment they are handed to the connection."""
        with self._lock:
            self._bytes[repo_id, path] = self._bytes.get((repo_id, path), 0) + count

    def requests(self) -> list[RequestRecord]:
        """Return all requests in the order of their answers."""
        with self._lock:
            return list(self._requests)

    def bytes_by_file(self) -> dict[tuple[str, str], int]:
        """Return body bytes by repository and path."""
        with self._lock:
            return dict(self._bytes)

    def clear(self) -> None:
        """Forget requests and bytes."""
        with self._lock:
            self._requests.clear()
            self._bytes.clear()


class Quotas:
    """Counts requests in fixed windows, as the Hub does per bucket; the limits may be changed while served."""

    def __init__(self) -> None:
        self.limits = {"api": 6_000, "resolvers": 50_000, "pages": 600}
        self._lock = threading.Lock()
        self._used: dict[str, int] = {}
        self._window_started = time.monotonic()

    def spend(self, bucket: str) -> tuple[bool, dict[str, str]]:
        """Count one request; return whether it is within the limit, and the headers that say so."""
        with self._lock:
            elapsed = time.monotonic() - self._window_started
            if elapsed >= WINDOW_SECONDS:
                self._used.clear()
                self._window_started, elapsed = time.monotonic(), 0.0
            used = self._used[bucket] = self._used.get(bucket, 0) + 1
        left = max(0, self.limits[bucket] - used)
        reset = max(1, WINDOW_SECONDS - int(elapsed))
        return used <= self.limits[bucket], rate_limit_headers(
            bucket, left=left, reset_seconds=reset, limit=self.limits[bucket]
        )


def rate_limit_headers(bucket: str, *, left: int, reset_seconds: int, limit: int) -> dict[str, str]:
    """Return the two rate-limit headers that come with every answer of the Hub."""
    return {
        "RateLimit": f'"{bucket}";r={left};t={reset_seconds}',
        "RateLimit-Policy": f'"fixed window";"{bucket}";q={limit};w={WINDOW_SECONDS}',
    }
