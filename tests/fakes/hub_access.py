"""Who may see what on the fake Hub, and the exact words and codes of its refusals."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tests.fakes.hub_faults import Fault, Faults, Target
from tests.fakes.hub_repository import Commit, Repository, StoredFile

WRONG_CREDENTIALS = "Invalid username or password."
OPEN_ON_GATED = frozenset({"README.md", "LICENSE", "LICENSE.md", "LICENSE.txt"})


class HubError(Exception):
    """A refusal: status, X-Error-Code (None: no such header) and X-Error-Message."""

    def __init__(
        self, status: int, code: str | None, message: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})


@dataclass(frozen=True)
class TokenInfo:
    """What one access token stands for."""

    name: str
    """The user; owns the namespace of the same name."""
    role: Literal["read", "write", "fineGrained"] = "read"
    granted: frozenset[str] = frozenset()
    """Gated repositories that are open to it."""
    awaiting: frozenset[str] = frozenset()
    """Gated repositories it has asked for."""
    reset: frozenset[str] = frozenset()
    """Gated repositories whose owner has reset its request."""
    private: frozenset[str] = frozenset()
    """Private repositories of others that it can read."""
    can_read_gated: bool = True
    """False: a fine-grained token without the right to read gated repositories."""

    def described(self) -> dict[str, Any]:
        """Return the answer to "who am I"."""
        access: dict[str, Any] = {"displayName": f"{self.name}-token", "role": self.role}
        if self.role == "fineGrained":
            scope = {"entity": {"type": "user", "name": self.name}, "permissions": ["repo.content.read"]}
            access["fineGrained"] = {"canReadGatedRepos": self.can_read_gated, "global": [], "scoped": [scope]}
        return {
            "type": "user",
            "id": self.name,
            "name": self.name,
            "fullname": self.name.title(),
            "orgs": [],
            "auth": {"type": "access_token", "accessToken": access},
        }


def authenticate(tokens: Mapping[str, TokenInfo], authorization: str | None) -> TokenInfo | None:
    """Return who is asking; None is anonymous.

    Raises: HubError when the token is not known, whatever was asked for.
    """
    if authorization is None:
        return None
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or token not in tokens:
        raise HubError(401, None, WRONG_CREDENTIALS)
    return tokens[token]


def visible(repository: Repository | None, who: TokenInfo | None) -> Repository:
    """Return the repository if it may be seen; missing and private ones are refused alike."""
    if repository is None or (repository.private and not can_read_private(repository, who)):
        if who is None:
            raise HubError(401, None, WRONG_CREDENTIALS)
        raise HubError(404, "RepoNotFound", "Repository not found")
    if repository.disabled:
        raise HubError(403, None, "Access to this resource is disabled.")
    return repository


def can_read_private(repository: Repository, who: TokenInfo | None) -> bool:
    """Say whether a private repository is open to a token."""
    return who is not None and (repository.repo_id in who.private or repository.repo_id.startswith(f"{who.name}/"))


def require_gate_open(repository: Repository, who: TokenInfo | None, *, faults: Faults, target: Target) -> None:
    """Refuse what the gate keeps closed, before file or revision are looked at."""
    repo_id = repository.repo_id
    is_struck = faults.take(Fault.GATED, target) is not None
    if not is_struck and (not repository.gated or is_granted(repo_id, who)):
        return
    if who is None:
        raise HubError(
            401,
            "GatedRepo",
            f"Access to model {repo_id} is restricted. You must have access to it and be authenticated to "
            "access it. Please log in.",
        )
    if repo_id in who.awaiting:
        message = f"Your request to access model {repo_id} is awaiting a review from the repo authors."
    elif repo_id in who.reset:
        message = f"Your request to access model {repo_id} has been reset. Please submit a new request."
    else:
        message = (
            f"Access to model {repo_id} is restricted and you are not in the authorized list. "
            f"Visit https://huggingface.co/{repo_id} to ask for access."
        )
    raise HubError(403, "GatedRepo", message)


def is_granted(repo_id: str, who: TokenInfo | None) -> bool:
    """Say whether the gate of a repository is open to a token."""
    return who is not None and who.can_read_gated and (repo_id in who.granted or repo_id.startswith(f"{who.name}/"))


def require_commit(repository: Repository, revision: str) -> Commit:
    """Return the commit a revision stands for."""
    commit = repository.resolve(revision)
    if commit is None:
        raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return commit


def require_file(commit: Commit, path: str) -> StoredFile:
    """Return a file of a commit."""
    file = commit.files.get(path)
    if file is None:
        raise HubError(404, "EntryNotFound", "Entry not found", headers={"X-Repo-Commit": commit.sha})
    return file
