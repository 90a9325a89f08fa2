"""Metrics of a process and the small server that shows them. The only owner of prometheus_client.

Every process answers `/metrics` and `/healthz` on a port of its own, from a thread, with the standard library:
it answers even while the process's event loop is stuck. Label values come from closed sets.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, Self

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, generate_latest

from core.errors import SettingsError

HTTP_REQUESTS = Counter("model_manager_http_requests_total", "Answers of the API.", ["method", "route", "status"])
HTTP_REQUEST_DURATION = Histogram(
    "model_manager_http_request_duration_seconds", "Time to an answer of the API, in seconds.", ["method", "route"]
)
SUBSCRIPTIONS = Gauge("model_manager_subscriptions", "Operations that run on sockets.")
SOCKETS = Gauge("model_manager_sockets", "Open sockets.")
JOBS_ENDED = Counter("model_manager_jobs_total", "Runs of jobs by how they ended.", ["kind", "state"])
JOB_DURATION = Histogram(
    "model_manager_job_duration_seconds",
    "Length of a run, in seconds.",
    ["kind", "state"],
    buckets=(1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600),
)
QUEUE_DEPTH = Gauge("model_manager_job_queue_depth", "Jobs that are queued.")
INSTALL_BYTES = Counter("model_manager_install_bytes_total", "Bytes that installs received.", ["source"])
BUS_LIVE = Gauge("model_manager_bus_live", "1 while Redis carries changes, 0 while readers fall back to the database.")


class _Handler(BaseHTTPRequestHandler):
    """Answers two paths and nothing else."""

    server_version = "model-manager"
    sys_version = ""
    is_healthy: ClassVar[Callable[[], bool]]

    def do_GET(self) -> None:
        """Answer."""
        if self.path == "/metrics":
            self._answer(200, generate_latest(REGISTRY), CONTENT_TYPE_LATEST)
        elif self.path == "/healthz":
            healthy = type(self).is_healthy()
            self._answer(200 if healthy else 503, b"ok\n" if healthy else b"stuck\n", "text/plain")
        else:
            self._answer(404, b"not found\n", "text/plain")

    def _answer(self, status: int, body: bytes, content_type: str) -> None:
        """Send a whole answer."""
        with suppress(ConnectionError):
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        """Keep quiet: scrapes are no news."""


class MetricsServer:
    """The server of one process. port: 0 means none is wanted."""

    def __init__(self, *, host: str, port: int, is_healthy: Callable[[], bool] = lambda: True) -> None:
        handler = type("Handler", (_Handler,), {"is_healthy": staticmethod(is_healthy)})
        try:
            self._server = ThreadingHTTPServer((host, port), handler) if port else None
        except OSError as error:
            raise SettingsError(
                f"Port {port} of MODEL_MANAGER_METRICS_PORT cannot be used ({error.strerror}): give another, or 0"
            ) from error

    def __enter__(self) -> Self:
        if self._server is not None:
            self._server.daemon_threads = True
            threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
