"""The fake Hub's control endpoint: the same switches and counters, for tests and demos in another process."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.fakes.hub_faults import Fault, FaultOptions

if TYPE_CHECKING:
    from tests.fakes.hub import FakeHub

Handler = Callable[["FakeHub", Any], Any]


def control_routes(hub: "FakeHub") -> list[Route]:
    """Return the routes below /_control; each answers JSON, and a wrong body is a 400."""
    table: list[tuple[str, str, Handler]] = [
        ("GET", "/bytes", _bytes),
        ("GET", "/requests", _requests),
        ("DELETE", "/records", _forget),
        ("POST", "/bytes_per_second", _set_pace),
        ("GET", "/faults", _list_faults),
        ("POST", "/faults", _add_fault),
        ("DELETE", "/faults", _clear_faults),
        ("POST", "/faults/release", _release_faults),
        ("POST", "/commits", _add_commit),
    ]
    return [Route(path, _endpoint(hub, handler), methods=[method]) for method, path, handler in table]


def _endpoint(hub: "FakeHub", handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            body = await request.json() if await request.body() else {}
            return JSONResponse(handler(hub, body))
        except (KeyError, TypeError, ValueError) as error:
            return JSONResponse({"error": f"{type(error).__name__}: {error}"}, 400)

    return answer


def _bytes(hub: "FakeHub", _body: Any) -> Any:
    files: dict[str, dict[str, int]] = {}
    for (repo_id, path), count in hub.records.bytes_by_file().items():
        files.setdefault(repo_id, {})[path] = count
    return {"total": hub.bytes_served(), "files": files}


def _requests(hub: "FakeHub", _body: Any) -> Any:
    return [asdict(record) for record in hub.requests]


def _forget(hub: "FakeHub", _body: Any) -> Any:
    hub.records.clear()
    return {}


def _set_pace(hub: "FakeHub", body: Any) -> Any:
    pace = body["bytes_per_second"]
    hub.bytes_per_second = None if pace is None else float(pace)
    return {"bytes_per_second": hub.bytes_per_second}


def _list_faults(hub: "FakeHub", _body: Any) -> Any:
    return [injection.described() for injection in hub.faults.active()]


def _add_fault(hub: "FakeHub", body: Any) -> Any:
    options: FaultOptions = {name: value for name, value in body.items() if name != "kind"}  # type: ignore[assignment]
    unknown = sorted(set(options) - set(FaultOptions.__annotations__))
    if unknown:
        raise ValueError(f"a fault has no {', '.join(unknown)}")
    return hub.faults.add(Fault(body["kind"]), **options).described()


def _clear_faults(hub: "FakeHub", _body: Any) -> Any:
    hub.faults.clear()
    return {}


def _release_faults(hub: "FakeHub", _body: Any) -> Any:
    hub.faults.release()
    return {}


def _add_commit(hub: "FakeHub", body: Any) -> Any:
    files = {path: None if text is None else text.encode() for path, text in body["files"].items()}
    return {"sha": hub.add_commit(body["repo_id"], files, branch=body.get("branch", "main"))}
