"""Where a file's bytes come from: the Hub's resolve address and the host that it sends us to.

Redirects are followed here, five at most, never from https to http, and the credential goes to the Hub's own host
only. An answer that is not exactly what was asked for is refused before its first byte is used.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urljoin, urlsplit

from urllib3 import BaseHTTPResponse, Timeout
from urllib3.exceptions import LocationValueError

from actors.connections import Connections
from core.errors import JobErrorCode, JobFailure
from core.hub import Hub, asked_wait_seconds
from core.repository import RepositoryFile

MAX_REDIRECTS = 5
MAX_REDIRECT_BODY_BYTES = 1 << 16
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
HEX_DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")
UNSAFE_IN_ADDRESS = re.compile(r"[\x00-\x20\x7f-\x9f\\]")


class TryLater(Exception):  # noqa: N818 - an instruction, not an error
    """The same request may succeed after a while. retry_after_seconds: as the source asked; None: it did not."""

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class RestartNeeded(Exception):  # noqa: N818
    """The source cannot go on where we are: the file begins at zero."""


class RangesIgnored(RestartNeeded):
    """The source gave the whole file where a part was asked for: it can only be had in one piece."""


@dataclass(frozen=True)
class Answer:
    """An open answer. etag: of the host that gives the bytes. address: where they are, good for a while."""

    response: BaseHTTPResponse
    etag: str | None
    address: str


class Timeouts(Protocol):
    """The part of a transfer's patience that a request needs, in seconds."""

    @property
    def connect_seconds(self) -> float:
        """For the connection."""

    @property
    def header_seconds(self) -> float:
        """For the first byte of the answer."""

    @property
    def stall_seconds(self) -> float:
        """For each further byte."""


class FileSource:
    """A repository at one commit, as a place that one run fetches files from. Safe to use from several threads."""

    def __init__(self, hub: Hub, *, repo_id: str, commit: str, connections: int = 8) -> None:
        self._hub = hub
        self._repo_id = repo_id
        self._commit = commit
        self._pool = Connections(at_once=connections)

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()

    def interrupt(self) -> None:
        """End every wait on this source at once, and for good: what waits raises urllib3's HTTPError."""
        self._pool.cut()

    def cut(self, response: BaseHTTPResponse) -> None:
        """End the wait on one answer; what reads it gets no more."""
        self._pool.cut_answer(response)

    def open(
        self,
        file: RepositoryFile,
        *,
        start: int,
        end: int,
        etag: str | None,
        patience: Timeouts,
        address: str | None = None,
    ) -> Answer:
        """Ask for a file's bytes from start to before end; return the open answer.

        etag: what the host of the bytes named the content before; an answer of other content is not taken.
        address: where an earlier answer came from, to be asked without the way over the Hub.
        Raises: TryLater, RestartNeeded, JobFailure (final), urllib3's HTTPError.
        """
        url = address or self._hub.resolve_url(self._repo_id, self._commit, file.path)
        headers = {"Accept-Encoding": "identity", "User-Agent": "model-manager", **_range_header(file, start, end)}
        if "Range" in headers and etag is not None and not etag.startswith("W/"):
            headers["If-Range"] = etag
        is_redirected = address is not None
        for _ in range(MAX_REDIRECTS + 1):
            response = self._request(url, headers, patience)
            try:
                self._check_identity(file, response, url)
                if response.status not in {301, 302, 303, 307, 308}:
                    self._check_answer(file, response, wanted=(start, end), etag=etag, is_redirected=is_redirected)
                    self._pool.set_read_timeout(response, patience.stall_seconds)
                    return Answer(response, response.headers.get("ETag"), url)
                url = _next_address(url, response.headers.get("Location"))
            except BaseException:
                response.close()
                raise
            _leave(response)
            is_redirected = True
        raise JobFailure(
            JobErrorCode.HUB_UNAVAILABLE,
            f"{file.path}: more than {MAX_REDIRECTS} redirects",
            hint="The source sends us in circles; ask whoever runs it.",
        )

    def _request(self, url: str, headers: Mapping[str, str], patience: Timeouts) -> BaseHTTPResponse:
        """Send one request."""
        timeout = Timeout(connect=patience.connect_seconds, read=patience.header_seconds)
        try:
            return self._pool.request(
                "GET",
                url,
                headers={**headers, **self._hub.headers_for(url)},
                timeout=timeout,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except (LocationValueError, UnicodeError) as error:
            raise JobFailure(
                JobErrorCode.HUB_UNAVAILABLE, "The Hub redirects to something that is no address"
            ) from error

    def _check_identity(self, file: RepositoryFile, response: BaseHTTPResponse, url: str) -> None:
        """Compare what the Hub says of the file with what it said when it was listed.

        Raises: RestartNeeded.
        """
        headers = response.headers
        if response.status >= 400 or not self._hub.is_own(url):
            return
        commit = headers.get("X-Repo-Commit")
        if commit is not None and commit != self._commit:
            raise RestartNeeded(f"the Hub answers for commit {commit[:8]} instead of {self._commit[:8]}")
        named = _plain(headers.get("X-Linked-ETag") or headers.get("ETag"))
        is_digest = HEX_DIGEST.fullmatch(named) is not None and len(named) == len(file.digest.value)
        if is_digest and named != file.digest.value:
            raise RestartNeeded(f"the Hub has other content now ({named[:8]}… instead of {file.digest.value[:8]}…)")
        size = headers.get("X-Linked-Size")
        if size is not None and size != str(file.size_bytes):
            raise RestartNeeded(f"the Hub has {size} bytes now instead of {file.size_bytes}")

    def _check_answer(
        self,
        file: RepositoryFile,
        response: BaseHTTPResponse,
        *,
        wanted: tuple[int, int],
        etag: str | None,
        is_redirected: bool,
    ) -> None:
        """Demand just the bytes that were asked for.

        Raises: TryLater, RestartNeeded, JobFailure.
        """
        status, headers = response.status, response.headers
        start, end = wanted
        if status in {401, 403, 404}:
            raise self._refused(file, response, is_redirected=is_redirected)
        if status == 416:
            raise RestartNeeded("the source has fewer bytes than we asked for (416)")
        if status not in {200, 206}:
            raise TryLater(f"the source answered {status}", retry_after_seconds=asked_wait_seconds(headers))
        if etag is not None and headers.get("ETag") not in {None, etag}:
            raise RestartNeeded("it has other content now, by its ETag")
        if status == 206:
            found = CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
            if found is None or tuple(int(group) for group in found.groups()) != (start, end - 1, file.size_bytes):
                raise RestartNeeded(f"it answered with the range {headers.get('Content-Range')!r}")
            return
        if (start, end) != (0, file.size_bytes):
            raise RangesIgnored("it answered with the whole file instead of a part")
        length = headers.get("Content-Length")
        if length is not None and length != str(file.size_bytes):
            raise RestartNeeded(f"it has {length} bytes instead of {file.size_bytes}")

    def _refused(self, file: RepositoryFile, response: BaseHTTPResponse, *, is_redirected: bool) -> Exception:
        """Say why a file is not given: for good, or because the signed address we were sent to has run out."""
        if is_redirected and response.headers.get("X-Error-Code") is None:
            return TryLater(f"the storage host answered {response.status}: its address may have run out")
        if response.headers.get("X-Error-Code") == "EntryNotFound":
            return JobFailure(JobErrorCode.UPSTREAM_CHANGED, f"{file.path} is not in the repository any more")
        return self._hub.refusal(
            status=response.status,
            error_code=response.headers.get("X-Error-Code"),
            repo_id=self._repo_id,
            revision=self._commit,
        )


def _range_header(file: RepositoryFile, start: int, end: int) -> dict[str, str]:
    """Name the bytes that are wanted; none are named when it is all of them."""
    if end < file.size_bytes:
        return {"Range": f"bytes={start}-{end - 1}"}
    return {"Range": f"bytes={start}-"} if start else {}


def _leave(response: BaseHTTPResponse) -> None:
    """Give a redirect's connection back for the next request, unless its body is more than a few words."""
    length = response.headers.get("Content-Length", "")
    if length.isascii() and length.isdigit() and int(length) <= MAX_REDIRECT_BODY_BYTES:
        response.drain_conn()
        response.release_conn()
    else:
        response.close()


def _next_address(url: str, location: str | None) -> str:
    """Follow one redirect. Raises: JobFailure when it leads nowhere or from https to http."""
    target = None
    with suppress(ValueError):
        target = urlsplit(urljoin(url, location or ""))
    is_downgrade = target is not None and urlsplit(url).scheme == "https" and target.scheme != "https"
    is_plain = location is not None and not UNSAFE_IN_ADDRESS.search(location)
    if target is None or target.scheme not in {"http", "https"} or not target.netloc or is_downgrade or not is_plain:
        raise JobFailure(JobErrorCode.HUB_UNAVAILABLE, "The Hub redirects to an address that is not safe to follow")
    return target.geturl()


def _plain(etag: str | None) -> str:
    """Strip an ETag of its quotes and weakness mark."""
    return (etag or "").removeprefix("W/").strip('"')
