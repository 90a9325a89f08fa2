"""What every HTTP answer passes on its way out: headers that protect pages, a request id, and the count of it."""

import logging
import time
from collections.abc import Sequence

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.ids import new_id
from core.metrics import HTTP_REQUEST_DURATION, HTTP_REQUESTS
from core.settings import IPNetwork
from graph.pages import CONTENT_SECURITY_POLICY
from graph.wrong_tokens import CLIENT, client_of

METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS"})
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
logger = logging.getLogger(__name__)


class Edge:
    """The outermost layer of the application. trusted_proxies: whose X-Forwarded-For is believed."""

    def __init__(self, app: ASGIApp, *, trusted_proxies: Sequence[IPNetwork] = ()) -> None:
        self._app = app
        self._trusted_proxies = trusted_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through and look at its answer."""
        if scope["type"] in {"http", "websocket"}:
            CLIENT.set(client_of(scope, trusted=self._trusted_proxies))
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = str(new_id())
        scope["state"] = {**scope.get("state", {}), "request_id": request_id}
        status = 500
        began = time.perf_counter()

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        finally:
            method = scope["method"] if scope["method"] in METHODS else "other"
            route = _route(scope)
            HTTP_REQUESTS.labels(method=method, route=route, status=str(status)).inc()
            HTTP_REQUEST_DURATION.labels(method=method, route=route).observe(time.perf_counter() - began)


def _route(scope: Scope) -> str:
    """Name the route that answered: from the application's own list, never a path that somebody sent."""
    path = scope["path"]
    if path.startswith("/graphiql"):
        return "graphiql"
    known = {
        "/": "welcome",
        "/graphql": "graphql",
        "/events": "events",
        "/healthz": "healthz",
        "/health": "healthz",
        "/readyz": "readyz",
    }
    return known.get(path, "other")
