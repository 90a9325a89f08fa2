"""The HTTP side of the fake Hub: one entry for every address, which parses, applies faults, dispatches and records."""

import hashlib
import hmac
import html
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, request_response

from tests.fakes import hub_access, hub_metadata
from tests.fakes.hub_access import HubError, TokenInfo
from tests.fakes.hub_control import control_routes
from tests.fakes.hub_faults import Fault, Injection, Place, Target
from tests.fakes.hub_records import RECORDED_HEADERS, RequestRecord, rate_limit_headers
from tests.fakes.hub_repository import Commit, Repository, StoredFile
from tests.fakes.hub_transfer import FileSender, decide, wait_until

if TYPE_CHECKING:
    from tests.fakes.hub import FakeHub

MODEL_ACTIONS = frozenset({"revision", "tree", "paths-info", "refs", "auth-check"})
BUCKETS: dict[Place, str] = {"api": "api", "resolve": "resolvers", "raw": "pages", "page": "pages"}
SIGNING_KEY = b"a key that keeps nothing secret"

Reply = Response | FileSender


@dataclass(frozen=True)
class Address:
    """What a path asks for."""

    at: Place
    action: str
    repo_id: str | None = None
    revision: str = "main"
    path: str = ""


@dataclass(frozen=True)
class Ask:
    """One request, parsed and authenticated."""

    hub: "FakeHub"
    request: Request
    address: Address
    target: Target
    who: TokenInfo | None
    query: dict[str, list[str]]
    body: bytes

    @property
    def base_url(self) -> str:
        """The address this client reaches the hub by, so that links lead back the same way."""
        return f"http://{self.request.headers.get('host', '')}"

    def flag(self, name: str) -> bool:
        """Say whether a query key is set."""
        return self.query.get(name, ["false"])[0].lower() in ("true", "1")


def build_app(hub: "FakeHub") -> Starlette:
    """Return the application that serves this hub."""

    async def answer(request: Request) -> Response:
        return await _answer(hub, request)  # type: ignore[return-value]

    app = Starlette(routes=[Mount("/_control", routes=control_routes(hub))])
    # Not a route: none matches a path with an encoded line break, and the Hub has an answer to that too.
    app.router.default = request_response(answer)
    return app


def parse(raw_path: str) -> Address:
    """Read a path; each part is decoded on its own, so that a revision may hold an encoded slash."""
    parts = [unquote(part) for part in raw_path.strip("/").split("/")]
    if parts[:2] == ["api", "models"] and len(parts) > 2:
        return _parse_model(parts[2:])
    if parts[0] == "api":
        return Address("api", "/".join(parts[1:]))
    if parts[0] == "cdn" and len(parts) > 3:
        return Address("cdn", "cdn", parts[1], parts[2], "/".join(parts[3:]))
    for at in (1, 2):
        if len(parts) > at + 2 and parts[at] in ("resolve", "raw"):
            place: Place = "resolve" if parts[at] == "resolve" else "raw"
            return Address(place, place, "/".join(parts[:at]), parts[at + 1], "/".join(parts[at + 2 :]))
    return Address("page", "page", "/".join(parts) or None)


def _parse_model(parts: list[str]) -> Address:
    names = 1 if len(parts) == 1 or parts[1] in MODEL_ACTIONS else 2
    repo_id, rest = "/".join(parts[:names]), parts[names:]
    action = rest[0] if rest else "info"
    revision = rest[1] if len(rest) > 1 else "main"
    return Address("api", f"models/{action}", repo_id, revision, "/".join(rest[2:]))


async def _answer(hub: "FakeHub", request: Request) -> Reply:
    address = parse(request.scope["raw_path"].decode("ascii", "replace"))
    is_file = address.at in ("resolve", "raw", "cdn")
    target = Target(address.at, request.method, address.repo_id, address.path if is_file else None)
    headers = {"X-Request-Id": hub.next_request_id()}
    bucket = BUCKETS.get(address.at)
    is_within = True
    if bucket is not None:
        is_within, limits = hub.quotas.spend(bucket)
        headers |= limits
    body = await request.body()
    try:
        _require_quota(is_within=is_within)
        reply = await _front(hub, request, target) or _dispatch(hub, request, address, target, body)
    except HubError as error:
        reply = refusal(error)
    for name, value in headers.items():
        if name not in reply.headers:
            reply.headers[name] = value
    hub.records.add_request(_record(request, address, reply.status_code))
    return reply


def _require_quota(*, is_within: bool) -> None:
    if not is_within:
        raise HubError(429, None, "You have reached your rate limit.")


def refusal(error: HubError) -> Response:
    """Return an error as the Hub words it: in headers, and in JSON."""
    line = " ".join(error.message.split()).encode("ascii", "backslashreplace").decode()
    headers = {**error.headers, "X-Error-Message": line}
    if error.code is not None:
        headers["X-Error-Code"] = error.code
    return JSONResponse({"error": error.message}, error.status, headers)


def _record(request: Request, address: Address, status: int) -> RequestRecord:
    headers = {name: value for name, value in request.headers.items() if name in RECORDED_HEADERS}
    file = address.path if address.at in ("resolve", "raw", "cdn") else None
    return RequestRecord(
        request.method, request.url.path, request.url.query, headers, status, address.at, address.repo_id, file
    )


async def _front(hub: "FakeHub", request: Request, target: Target) -> Response | None:
    """Apply the faults that strike before anything is looked up."""
    if delay := hub.faults.take(Fault.DELAY, target):
        await _delay(hub, delay)
    if target.at == "api" and hub.faults.take(Fault.API_DOWN, target):
        raise HubError(503, None, "Service Unavailable")
    if down := hub.faults.take(Fault.UNAVAILABLE, target):
        raise HubError(503, None, "Service Unavailable", headers=down.retry_after_header)
    if limited := hub.faults.take(Fault.TOO_MANY_REQUESTS, target):
        raise HubError(429, None, "Too Many Requests", headers=_rate_limit_of(hub, limited, target))
    if hub.faults.take(Fault.REDIRECT_LOOP, target):
        hop = int(request.query_params.get("hop", "0")) + 1
        return _redirect(f"{request.url.remove_query_params('hop').include_query_params(hop=hop)}", {})
    if target.at == "cdn" and hub.faults.take(Fault.EXPIRED_URL, target):
        raise HubError(403, None, "Request has expired")
    if "authorization" in request.headers and hub.faults.take(Fault.BAD_TOKEN, target):
        raise HubError(401, None, hub_access.WRONG_CREDENTIALS)
    return None


async def _delay(hub: "FakeHub", delay: Injection) -> None:
    until = time.monotonic() + delay.seconds
    await wait_until(lambda: time.monotonic() >= until or delay.released.is_set() or hub.stopping.is_set())


def _rate_limit_of(hub: "FakeHub", limited: Injection, target: Target) -> dict[str, str]:
    headers = limited.retry_after_header
    bucket = BUCKETS.get(target.at)
    if limited.rate_limit_reset_seconds is None or bucket is None:
        return headers
    reset = limited.rate_limit_reset_seconds
    limit = hub.quotas.limits[bucket]
    return headers | rate_limit_headers(bucket, left=0, reset_seconds=reset, limit=limit)


def _dispatch(hub: "FakeHub", request: Request, address: Address, target: Target, body: bytes) -> Reply:
    handler = HANDLERS.get(address.action)
    if handler is None:
        raise HubError(404, None, "Sorry, we can't find the page you are looking for.")
    methods = ("POST",) if address.action == "models/paths-info" else ("GET", "HEAD")
    if request.method not in methods:
        raise HubError(405, None, "Method not allowed")
    authorization = None if address.at == "cdn" else request.headers.get("authorization")
    who = hub_access.authenticate(hub.tokens, authorization)
    query = parse_qs(request.url.query, keep_blank_values=True)
    return handler(Ask(hub, request, address, target, who, query, body))


def _repository(ask: Ask) -> Repository:
    assert ask.address.repo_id is not None
    return hub_access.visible(ask.hub.find_repository(ask.address.repo_id), ask.who)


def _commit(ask: Ask) -> tuple[Repository, Commit]:
    repository = _repository(ask)
    return repository, hub_access.require_commit(repository, ask.address.revision)


def _whoami(ask: Ask) -> Reply:
    if ask.who is None:
        raise HubError(401, None, hub_access.WRONG_CREDENTIALS)
    return JSONResponse(ask.who.described())


def _agent_harnesses(_ask: Ask) -> Reply:
    return JSONResponse({"standardEnvVars": [], "harnesses": {}})


def _models(ask: Ask) -> Reply:
    names = ask.query.get("expand", []) + ask.query.get("expand[]", [])
    _require_known(names, hub_metadata.LIST_EXPANDS, "expand")
    _require_known(ask.query.get("sort", []), hub_metadata.SORTS, "sort")
    seen = [each for each in ask.hub.repositories() if not each.private or hub_access.can_read_private(each, ask.who)]
    return _page(ask, hub_metadata.list_models(seen, ask.query))


def _require_known(names: list[str], known: frozenset[str], key: str) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise HubError(400, None, f'Invalid value for "{key}": {", ".join(unknown)}')


def _page(ask: Ask, rows: list[dict[str, Any]]) -> Response:
    """Return one page of rows, with a link to the next one if there is any."""
    start = _count_of(ask, "cursor", default=0)
    size = max(1, min(_count_of(ask, "limit", default=1000), ask.hub.page_size))
    response = JSONResponse(rows[start : start + size])
    if start + size < len(rows):
        query = urlencode({**ask.query, "cursor": [str(start + size)]}, doseq=True)
        response.headers["Link"] = f'<{ask.base_url}{ask.request.url.path}?{query}>; rel="next"'
    return response


def _count_of(ask: Ask, key: str, *, default: int) -> int:
    text = ask.query.get(key, [str(default)])[0]
    if not (text.isascii() and text.isdecimal()):
        raise HubError(400, None, f'"{key}" must be a number')
    return int(text)


def _model_info(ask: Ask) -> Reply:
    repository, commit = _commit(ask)
    names = ask.query.get("expand", []) + ask.query.get("expand[]", [])
    if names:
        _require_known(names, hub_metadata.MODEL_EXPANDS, "expand")
        return JSONResponse(hub_metadata.expanded(repository, commit, names))
    return JSONResponse(
        hub_metadata.model_info(repository, commit, blobs=ask.flag("blobs"), security=ask.flag("securityStatus"))
    )


def _tree(ask: Ask) -> Reply:
    _, commit = _commit(ask)
    folder = ask.address.path.strip("/")
    rows = hub_metadata.tree_rows(commit, folder=folder, recursive=ask.flag("recursive"), expand=ask.flag("expand"))
    if folder and not rows:
        message = f'"{folder}" does not exist on "{ask.address.revision}"'
        raise HubError(404, "EntryNotFound", message, headers={"X-Repo-Commit": commit.sha})
    return _page(ask, rows)


def _paths_info(ask: Ask) -> Reply:
    _, commit = _commit(ask)
    if ask.request.headers.get("content-type", "").startswith("application/json"):
        asked = json.loads(ask.body)
        paths, expand = asked.get("paths", []), bool(asked.get("expand"))
    else:
        form = parse_qs(ask.body.decode())
        paths, expand = form.get("paths", []), form.get("expand", ["false"])[0].lower() == "true"
    return JSONResponse(hub_metadata.path_rows(commit, paths, expand=expand))


def _refs(ask: Ask) -> Reply:
    return JSONResponse(hub_metadata.refs_of(_repository(ask), with_pull_requests=ask.flag("include_prs")))


def _auth_check(ask: Ask) -> Reply:
    repository = _repository(ask)
    hub_access.require_gate_open(repository, ask.who, faults=ask.hub.faults, target=ask.target)
    return PlainTextResponse("OK")


def _resolve(ask: Ask) -> Reply:
    file, commit = _open_file(ask, is_open=ask.address.path in hub_access.OPEN_ON_GATED)
    headers = {"X-Repo-Commit": commit.sha}
    elsewhere = ask.hub.faults.take(Fault.REDIRECT, ask.target)
    if elsewhere is None and file.sha256 is None:
        return _file_reply(ask, file, headers)
    if elsewhere is None:
        location = _signed_url(ask, commit, base=ask.hub.cdn_url or ask.base_url)
    else:
        location = elsewhere.location or _signed_url(ask, commit, base=ask.hub.other_name_url)
    linked = {"X-Linked-ETag": f'"{file.etag}"', "X-Linked-Size": str(file.size_bytes), "Accept-Ranges": "bytes"}
    return _redirect(location, {**headers, **linked, "ETag": f'"{file.etag}"'})


def _open_file(ask: Ask, *, is_open: bool) -> tuple[StoredFile, Commit]:
    """Return the file asked for; the gate comes before the revision and the file name."""
    repository = _repository(ask)
    if not is_open:
        hub_access.require_gate_open(repository, ask.who, faults=ask.hub.faults, target=ask.target)
    commit = hub_access.require_commit(repository, ask.address.revision)
    return hub_access.require_file(commit, ask.address.path), commit


def _redirect(location: str, headers: dict[str, str]) -> Response:
    return PlainTextResponse(f"Found. Redirecting to {location}", 302, {**headers, "Location": location})


def _signed_url(ask: Ask, commit: Commit, *, base: str) -> str:
    path = f"/cdn/{quote(ask.address.repo_id or '', safe='')}/{commit.sha}/{quote(ask.address.path)}"
    expires = f"{time.time() + ask.hub.signed_url_seconds:.3f}"
    return f"{base}{path}?{urlencode({'Expires': expires, 'Signature': _signature(path, expires)})}"


def _signature(path: str, expires: str) -> str:
    return hmac.new(SIGNING_KEY, f"{path} {expires}".encode(), hashlib.sha256).hexdigest()


def _cdn(ask: Ask) -> Reply:
    """Serve a signed URL, which needs no token; it knows nothing of what the gate says by now."""
    expires, signature = (ask.query.get(name, [""])[0] for name in ("Expires", "Signature"))
    path = ask.request.scope["raw_path"].decode()
    if not hmac.compare_digest(signature, _signature(path, expires)):
        raise HubError(403, None, "The signature does not match")
    if float(expires) < time.time():
        raise HubError(403, None, "Request has expired")
    repository = ask.hub.find_repository(ask.address.repo_id or "")
    commit = repository and repository.resolve(ask.address.revision)
    if not commit:
        raise HubError(404, None, "No such key")
    file = hub_access.require_file(commit, ask.address.path)
    # A client that finds the CDN on the hub's own host takes it for the hub and wants the commit here too.
    return _file_reply(ask, file, {} if ask.hub.cdn_url else {"X-Repo-Commit": commit.sha})


def _raw(ask: Ask) -> Reply:
    file, commit = _open_file(ask, is_open=False)
    if file.pointer is None:
        return _file_reply(ask, file, {"X-Repo-Commit": commit.sha})
    return PlainTextResponse(file.pointer, 200, {"X-Repo-Commit": commit.sha, "ETag": f'"{file.oid}"'})


def _file_reply(ask: Ask, file: StoredFile, headers: dict[str, str]) -> Reply:
    answer = decide(ask.hub.faults, file, target=ask.target, request=ask.request.headers, extra=headers)
    return FileSender(ask.hub, answer, target=ask.target)


def _model_page(ask: Ask) -> Reply:
    if ask.address.repo_id is None:
        links = (f'<li><a href="/{each.repo_id}">{each.repo_id}</a>' for each in ask.hub.repositories())
        return HTMLResponse(f"<!doctype html><title>Models</title><ul>{''.join(links)}</ul>")
    repository = _repository(ask)
    readme = repository.head.files.get("README.md")
    text = html.escape(readme.read(0, readme.size_bytes).decode(errors="replace")) if readme else ""
    return HTMLResponse(f"<!doctype html><title>{repository.repo_id}</title><pre>{text}</pre>")


HANDLERS: dict[str, Callable[[Ask], Reply]] = {
    "whoami-v2": _whoami,
    "agent-harnesses": _agent_harnesses,
    "models": _models,
    "models/info": _model_info,
    "models/revision": _model_info,
    "models/tree": _tree,
    "models/paths-info": _paths_info,
    "models/refs": _refs,
    "models/auth-check": _auth_check,
    "resolve": _resolve,
    "raw": _raw,
    "cdn": _cdn,
    "page": _model_page,
}
