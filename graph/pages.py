"""Static pages: GraphiQL as it was built, and a plain page where nothing was. No request leaves these pages."""

from collections.abc import Awaitable, Callable
from html import escape
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope
from typing_extensions import override

GRAPHIQL_DIRECTORY = Path(__file__).parent.parent / "ui" / "graphiql" / "dist"
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " font-src 'self' data:; worker-src 'self'; connect-src 'self'; object-src 'none'; form-action 'none';"
    " frame-ancestors 'none'; base-uri 'none'"
)
NOT_BUILT = (
    "GraphiQL has not been built on this machine. Install Node.js 20.19 or newer and run `make graphiql`;"
    " the GraphQL API at /graphql works without it."
)
WELCOME = (
    "This is Model Manager. Its API is GraphQL at /graphql: every operation needs a token, sent as"
    " `Authorization: Bearer mm_…`. Try it in the browser at /graphiql/."
)


class Assets(StaticFiles):
    """Files of a built page: named by their content, so kept for ever; the page itself is asked for each time."""

    @override
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        is_named_by_content = path.startswith("assets/") and response.status_code == 200
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if is_named_by_content else "no-cache"
        return response


def routes(graphiql: Path = GRAPHIQL_DIRECTORY) -> list[BaseRoute]:
    """Make the routes of all pages."""
    is_built = (graphiql / "index.html").is_file()
    page: BaseRoute = (
        Mount("/graphiql", Assets(directory=graphiql, html=True), name="graphiql")
        if is_built
        else Route("/graphiql/", _plain("GraphiQL is not here", NOT_BUILT, status=404), name="graphiql")
    )
    return [Route("/", _plain("Model Manager", WELCOME, status=200), name="welcome"), page]


def _plain(title: str, text: str, *, status: int) -> Callable[[Request], Awaitable[Response]]:
    """Make an endpoint that shows one plain page."""
    body = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>"
        f"<body><main><h1>{escape(title)}</h1><p>{escape(text)}</p></main></body></html>"
    )

    async def endpoint(_request: Request) -> Response:
        return HTMLResponse(body, status_code=status)

    return endpoint
