"""The Hugging Face Hub: what a revision holds and whether we may have it. The only owner of huggingface_hub.

Metadata goes through the Hub's own client; the bytes are fetched by `actors/download.py` from `resolve_url`.
"""

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from core.errors import JobErrorCode, JobFailure
from core.names import COMMIT, is_digest, is_safe_file_path
from core.repository import Digest, DigestKind, RepositoryFile, Snapshot

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

REQUEST_TIMEOUT_SECONDS = 20.0
MAX_RETRY_AFTER_SECONDS = 300.0
RATE_LIMIT = re.compile(r";\s*r=0\s*;\s*t=(\d{1,9})(?!\d)")
DEFAULT_PORTS = {"http": 80, "https": 443}


class AccessOutcome(StrEnum):
    """Whether the Hub would give us a repository; the names of the API's `AccessOutcome`."""

    OK = "OK"
    TOKEN_MISSING = "TOKEN_MISSING"  # noqa: S105 - a name, not a secret
    TOKEN_INVALID = "TOKEN_INVALID"  # noqa: S105
    TOKEN_LACKS_REPOSITORY = "TOKEN_LACKS_REPOSITORY"  # noqa: S105
    TERMS_NOT_ACCEPTED = "TERMS_NOT_ACCEPTED"
    NOT_FOUND = "NOT_FOUND"
    HUB_UNREACHABLE = "HUB_UNREACHABLE"


class HubError(JobFailure):
    """The Hub did not give what was asked for.

    access: what stands in the way. url: the page where it can be mended, if there is one.
    """

    def __init__(
        self,
        code: JobErrorCode,
        message: str,
        *,
        access: AccessOutcome,
        url: str | None = None,
        hint: str | None = None,
        retryable: bool = False,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(code, message, hint=hint, retryable=retryable, retry_after_seconds=retry_after_seconds)
        self.access = access
        self.url = url


class Hub:
    """One Hub (or mirror) and the credential we have for it.

    endpoint: base URL without a trailing slash. token: None means anonymous.
    timeout_seconds: for the connection, and for each piece of an answer.
    """

    def __init__(self, *, endpoint: str, token: str | None, timeout_seconds: float = REQUEST_TIMEOUT_SECONDS) -> None:
        self.endpoint = endpoint.rstrip("/")
        self._token = token or None
        self._timeout_seconds = timeout_seconds

    @cached_property
    def _api(self) -> "HfApi":
        """Import the client on first use: it takes a second."""
        from huggingface_hub import HfApi, constants  # noqa: PLC0415 - slow to import

        constants.HF_HUB_DISABLE_TELEMETRY = True  # it would ask huggingface.co for names, whatever our endpoint is
        return HfApi(endpoint=self.endpoint, token=self._token or False, library_name="model-manager")

    async def snapshot(self, repo_id: str, revision: str) -> Snapshot:
        """List a revision's files with their digests, at the commit that it points to now.

        Raises: HubError; only `retryable` ones are worth another try.
        Source: Hub API "model info" with blobs=true, and "auth-check" for gated repositories.
        """
        return await asyncio.to_thread(self._snapshot, repo_id, revision)

    def _snapshot(self, repo_id: str, revision: str) -> Snapshot:
        """Ask and translate, in the calling thread."""
        from httpx2 import HTTPError  # noqa: PLC0415 - comes with huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

        try:
            info = self._api.model_info(repo_id, revision=revision, files_metadata=True, timeout=self._timeout_seconds)
            if info.gated:
                self._check_gate(repo_id)
            return _snapshot_of(info, repo_id)
        except HfHubHTTPError as error:
            raise self._translated(error, repo_id=repo_id, revision=revision) from error
        except (HTTPError, OSError) as error:
            raise self._unreachable(f"The Hub at {self.endpoint} does not answer: {type(error).__name__}") from error
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise self._unreachable(f"The Hub at {self.endpoint} answered something that is no model record") from error

    def _check_gate(self, repo_id: str) -> None:
        """Ask whether a gated repository is open to us; the client's own `auth_check` waits without an end.

        Raises: the client's HfHubHTTPError when it is not.
        """
        from huggingface_hub import get_session, hf_raise_for_status  # noqa: PLC0415

        url = f"{self.endpoint}/api/models/{repo_id}/auth-check"
        answer = get_session().get(url, headers=self.headers_for(url), timeout=self._timeout_seconds)
        hf_raise_for_status(answer)

    def resolve_url(self, repo_id: str, commit: str, path: str) -> str:
        """Return the address of one file at one commit."""
        return f"{self.endpoint}/{repo_id}/resolve/{commit}/{quote(path)}"

    def headers_for(self, url: str) -> dict[str, str]:
        """Return the credential for a URL: none for any host but the Hub's own."""
        if self._token is None or not self.is_own(url):
            return {}
        return {"Authorization": f"Bearer {self._token}"}

    def is_own(self, url: str) -> bool:
        """Tell whether a URL is the Hub's own: the same scheme, host and port as the endpoint."""
        return _origin(url) == _origin(self.endpoint)

    def refusal(self, *, status: int, error_code: str | None, repo_id: str, revision: str) -> HubError:
        """Say in words what an answer of 401, 403 or 404 means.

        error_code: the X-Error-Code header. Source: Hub API errors (X-Error-Code first, then the status).
        """
        page = f"{self.endpoint}/{repo_id}"
        if error_code == "GatedRepo":
            return self._gated(page, repo_id)
        if error_code == "RevisionNotFound":
            return HubError(
                JobErrorCode.NOT_FOUND,
                f"{repo_id} has no revision {revision!r}",
                access=AccessOutcome.NOT_FOUND,
                url=f"{page}/tree/main",
                hint="Give a branch, a tag or a commit of this repository; main is the usual branch.",
            )
        if error_code is None and status == 401 and self._token is not None:
            return HubError(
                JobErrorCode.HUB_ACCESS_DENIED,
                f"The Hub refused {repo_id}: either the token is not good (any more) or there is no such repository",
                access=AccessOutcome.TOKEN_INVALID,
                url=f"{self.endpoint}/settings/tokens",
                hint="Make a new read token and set it as MODEL_MANAGER_HUB_TOKEN.",
            )
        if status == 403 and self._token is None:
            return HubError(
                JobErrorCode.HUB_ACCESS_DENIED,
                f"The Hub does not give {repo_id} to anybody without a token",
                access=AccessOutcome.TOKEN_MISSING,
                url=page,
                hint=f"Look at {page}, and set a token that may read it as MODEL_MANAGER_HUB_TOKEN.",
            )
        if status == 403:
            return HubError(
                JobErrorCode.HUB_ACCESS_DENIED,
                f"The token does not reach {repo_id}",
                access=AccessOutcome.TOKEN_LACKS_REPOSITORY,
                url=f"{self.endpoint}/settings/tokens",
                hint="Give the token read access to this repository.",
            )
        return HubError(
            JobErrorCode.NOT_FOUND,
            f"The Hub at {self.endpoint} has no model {repo_id}, or it is private",
            access=AccessOutcome.NOT_FOUND,
            hint="Check the spelling; a private repository needs a token that may read it.",
        )

    def _gated(self, page: str, repo_id: str) -> HubError:
        """Say that a gate is closed, and whether a token or the terms would open it."""
        has_token = self._token is not None
        return HubError(
            JobErrorCode.HUB_ACCESS_DENIED,
            f"{repo_id} is gated: "
            + ("its terms have not been accepted for this token" if has_token else "it needs a token"),
            access=AccessOutcome.TERMS_NOT_ACCEPTED if has_token else AccessOutcome.TOKEN_MISSING,
            url=page,
            hint=f"Accept the terms at {page}"
            + ("." if has_token else " and set a token of that account as MODEL_MANAGER_HUB_TOKEN."),
        )

    def _unreachable(self, message: str, *, retry_after_seconds: float | None = None) -> HubError:
        """Make the failure of a Hub that is away or busy: worth another try."""
        return HubError(
            JobErrorCode.HUB_UNAVAILABLE,
            message,
            access=AccessOutcome.HUB_UNREACHABLE,
            hint="It is tried again by itself.",
            retryable=True,
            retry_after_seconds=retry_after_seconds,
        )

    def _translated(self, error: "HfHubHTTPError", *, repo_id: str, revision: str) -> HubError:
        """Turn an error answer into ours."""
        response = error.response
        status = response.status_code
        if status == 429 or status >= 500:
            return self._unreachable(
                f"The Hub at {self.endpoint} answered {status}",
                retry_after_seconds=asked_wait_seconds(response.headers),
            )
        return self.refusal(
            status=status,
            error_code=response.headers.get("X-Error-Code"),
            repo_id=repo_id,
            revision=revision,
        )


def asked_wait_seconds(headers: Mapping[str, str]) -> float | None:
    """Return how long a busy Hub asks us to wait, 0 to 300 s; None when it does not say.

    Source: RFC 9110, section 10.2.3 (Retry-After); the Hub's RateLimit header when a window is used up.
    """
    asked = retry_after(headers.get("Retry-After"))
    window = RATE_LIMIT.search(headers.get("RateLimit", ""))
    if asked is None and window is not None:
        asked = min(float(window[1]), MAX_RETRY_AFTER_SECONDS)
    return asked


def retry_after(value: str | None) -> float | None:
    """Read a Retry-After header, seconds or a date, as seconds from now: 0 to 300; None when there is none."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            at = parsedate_to_datetime(value)
        except ValueError:
            return None
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        seconds = (at - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS) if seconds == seconds else None  # noqa: PLR0124 - NaN


def _origin(url: str) -> tuple[str, str | None, int | None] | None:
    """Return a URL's scheme, host and port; None when it has none, or carries a user's name."""
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    return None if "@" in parts.netloc else (parts.scheme, parts.hostname, port)


def _snapshot_of(info: "ModelInfo", repo_id: str) -> Snapshot:
    """Read the client's record.

    Raises: JobFailure INVALID when it is not one that can be installed safely, TypeError and the like for garbage.
    """
    if not info.sha or not COMMIT.fullmatch(info.sha):
        raise JobFailure(JobErrorCode.INVALID, f"The Hub gave no commit for {repo_id}")
    files = tuple(_file_of(sibling, repo_id) for sibling in info.siblings or ())
    if len({file.path for file in files}) != len(files):
        raise JobFailure(JobErrorCode.INVALID, f"{repo_id} lists a file twice")
    directories = {file.path[:end] for file in files for end, sign in enumerate(file.path) if sign == "/"}
    if both := sorted(directories.intersection(file.path for file in files)):
        raise JobFailure(JobErrorCode.INVALID, f"{repo_id} lists {both[0]!r} as a file and as a directory")
    return Snapshot(repo_id=repo_id, commit=info.sha, is_gated=bool(info.gated), files=files)


def _file_of(sibling: "RepoSibling", repo_id: str) -> RepositoryFile:
    """Read one file of the record."""
    path, size = sibling.rfilename, sibling.size
    if not isinstance(path, str) or not is_safe_file_path(path):
        raise JobFailure(JobErrorCode.INVALID, f"{repo_id} names a file that cannot be written safely: {path!r}")
    digest = (
        Digest(DigestKind.SHA256, sibling.lfs.sha256)
        if sibling.lfs
        else Digest(DigestKind.GIT_SHA1, sibling.blob_id or "")
    )
    if type(size) is not int or size < 0 or not is_digest(digest):
        raise JobFailure(JobErrorCode.INVALID, f"The Hub gave no size or digest for {path} of {repo_id}")
    return RepositoryFile(path=path, size_bytes=size, digest=digest)
