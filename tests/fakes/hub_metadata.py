"""How the fake Hub describes its repositories in JSON: model info, trees, refs and the list of models."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from tests.fakes.hub_repository import Commit, Repository, StoredFile

Json = dict[str, Any]
Query = Mapping[str, list[str]]

LIST_EXPANDS = frozenset(
    {
        *("author", "cardData", "config", "createdAt", "disabled", "downloads", "downloadsAllTime", "evalResults"),
        *("gated", "gguf", "inference", "inferenceProviderMapping", "lastModified", "library_name", "likes"),
        *("mask_token", "model-index", "pipeline_tag", "private", "resourceGroup", "safetensors", "sha", "siblings"),
        *("spaces", "tags", "transformersInfo", "trendingScore", "widgetData"),
    }
)
MODEL_EXPANDS = LIST_EXPANDS | {"baseModels", "childrenModelCount", "usedStorage"}
LIST_FIELDS = (
    *("_id", "id", "modelId", "likes", "trendingScore", "private", "downloads", "tags", "pipeline_tag"),
    *("library_name", "createdAt"),
)
FULL_LIST_FIELDS = (*LIST_FIELDS, "author", "sha", "lastModified", "gated", "disabled", "siblings")
NOT_BY_DEFAULT = frozenset({"downloadsAllTime", "trendingScore", "evalResults", "inferenceProviderMapping"})
SORTS = frozenset({"lastModified", "trendingScore", "createdAt", "downloads", "likes"})


def model_info(repository: Repository, commit: Commit, *, blobs: bool = False, security: bool = False) -> Json:
    """Return the answer to "model info" without `expand`."""
    info = every_property(repository, commit)
    info["siblings"] = [sibling_row(file, blobs=blobs) for file in commit.files.values()]
    if security:
        info["securityRepoStatus"] = repository.metadata.get(
            "securityRepoStatus", {"scansDone": True, "filesWithIssues": []}
        )
    return {name: value for name, value in info.items() if name not in NOT_BY_DEFAULT}


def expanded(repository: Repository, commit: Commit, names: Iterable[str]) -> Json:
    """Return the named properties only, and the id."""
    info = every_property(repository, commit)
    return {name: info[name] for name in ("_id", "id", *names) if name in info}


def every_property(repository: Repository, commit: Commit) -> Json:
    """Return all that is known of a model, what was given in place of what was derived."""
    library = commit.card.get("library_name") or ("transformers" if commit.config else None)
    info: Json = {
        "_id": repository.object_id,
        "id": repository.repo_id,
        "modelId": repository.repo_id,
        "author": author_of(repository),
        "sha": commit.sha,
        "createdAt": wire_time(min(each.committed_at for each in repository.commits.values())),
        "lastModified": wire_time(commit.committed_at),
        "private": repository.private,
        "gated": repository.gated,
        "disabled": repository.disabled,
        "downloads": 0,
        "downloadsAllTime": 0,
        "likes": 0,
        "trendingScore": 0,
        "library_name": library,
        "pipeline_tag": commit.card.get("pipeline_tag"),
        "tags": tags_of(commit, library=library),
        "cardData": commit.card or None,
        "config": commit.config or None,
        "siblings": [sibling_row(file, blobs=False) for file in commit.files.values()],
        "spaces": [],
        "usedStorage": sum(file.size_bytes for file in commit.files.values()),
    }
    if commit.parameters:
        info["safetensors"] = {"parameters": commit.parameters, "total": sum(commit.parameters.values())}
    given = {name: value for name, value in repository.metadata.items() if name not in ("apps", "securityRepoStatus")}
    return {name: value for name, value in {**info, **given}.items() if value is not None}


def author_of(repository: Repository) -> str:
    """Return the namespace of a repository."""
    return repository.repo_id.partition("/")[0]


def tags_of(commit: Commit, *, library: str | None) -> list[str]:
    """Return the tags the Hub derives from files, card and config."""
    suffixes = {path.rpartition(".")[2] for path in commit.files}
    derived = [
        library,
        *(kind for kind in ("safetensors", "gguf") if kind in suffixes),
        commit.config.get("model_type"),
    ]
    derived += [*(commit.card.get("tags") or []), commit.card.get("pipeline_tag")]
    licence = commit.card.get("license")
    derived += [f"license:{licence}" if licence else None, "region:us"]
    return list(dict.fromkeys(str(tag) for tag in derived if tag))


def sibling_row(file: StoredFile, *, blobs: bool) -> Json:
    """Return one entry of `siblings`; with sizes and digests when blobs were asked for."""
    if not blobs:
        return {"rfilename": file.path}
    row: Json = {"rfilename": file.path, "blobId": file.oid, "size": file.size_bytes}
    if file.pointer is not None:
        row["lfs"] = {"sha256": file.sha256, "size": file.size_bytes, "pointerSize": len(file.pointer)}
    return row


def file_row(file: StoredFile, commit: Commit, *, expand: bool) -> Json:
    """Return one file of a tree; LFS calls its digest `oid` here."""
    row: Json = {"type": "file", "path": file.path, "size": file.size_bytes, "oid": file.oid}
    if file.pointer is not None:
        row["lfs"] = {"oid": file.sha256, "size": file.size_bytes, "pointerSize": len(file.pointer)}
    if expand:
        row["lastCommit"] = last_commit(commit)
        row["securityFileStatus"] = {"status": "safe", "avScan": None, "pickleImportScan": None}
    return row


def folder_row(path: str, commit: Commit, *, expand: bool) -> Json:
    """Return one folder of a tree."""
    oid = hashlib.sha1(f"{commit.sha} {path}".encode(), usedforsecurity=False).hexdigest()
    row: Json = {"type": "directory", "path": path, "oid": oid, "size": 0}
    return {**row, "lastCommit": last_commit(commit)} if expand else row


def last_commit(commit: Commit) -> Json:
    """Return how rows name the commit they come from."""
    return {"id": commit.sha, "title": commit.title, "date": wire_time(commit.committed_at)}


def tree_rows(commit: Commit, *, folder: str, recursive: bool, expand: bool) -> list[Json]:
    """Return the rows below a folder, folders before the files in them."""
    prefix = f"{folder}/" if folder else ""
    rows: dict[str, Json] = {}
    for path, file in sorted(commit.files.items()):
        if not path.startswith(prefix):
            continue
        for parent in parents_of(path):
            if parent.startswith(prefix):
                rows.setdefault(parent, folder_row(parent, commit, expand=expand))
        rows[path] = file_row(file, commit, expand=expand)
    depth = prefix.count("/")
    return [row for path, row in rows.items() if recursive or path.count("/") == depth]


def path_rows(commit: Commit, paths: Iterable[str], *, expand: bool) -> list[Json]:
    """Return rows for named paths; unknown ones are left out."""
    folders = {parent for path in commit.files for parent in parents_of(path)}
    rows = []
    for path in paths:
        if path in commit.files:
            rows.append(file_row(commit.files[path], commit, expand=expand))
        elif path in folders:
            rows.append(folder_row(path, commit, expand=expand))
    return rows


def parents_of(path: str) -> Iterator[str]:
    """Return the folders a path is in, outermost first."""
    parts = path.split("/")[:-1]
    return ("/".join(parts[: count + 1]) for count in range(len(parts)))


def refs_of(repository: Repository, *, with_pull_requests: bool) -> Json:
    """Return branches and tags."""
    refs: Json = {
        "branches": [_ref_row(name, "heads", sha) for name, sha in repository.branches.items()],
        "tags": [_ref_row(name, "tags", sha) for name, sha in repository.tags.items()],
        "converts": [],
    }
    return {**refs, "pullRequests": []} if with_pull_requests else refs


def _ref_row(name: str, kind: str, sha: str) -> Json:
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": sha}


def list_models(repositories: Iterable[Repository], query: Query) -> list[Json]:
    """Return the rows of a model list, filtered and sorted, all pages at once."""
    rows = [(every_property(repository, repository.head), repository) for repository in repositories]
    kept = [(info, repository) for info, repository in rows if matches(info, repository, query)]
    sort = query.get("sort", ["trendingScore"])[0]
    kept.sort(key=lambda pair: (pair[0].get(sort, 0), pair[0]["downloads"]), reverse=True)
    return [_list_row(info, query) for info, _ in kept]


def _list_row(info: Json, query: Query) -> Json:
    names = query.get("expand", []) + query.get("expand[]", [])
    if names:
        return {name: info[name] for name in ("_id", "id", *names) if name in info}
    fields = list(FULL_LIST_FIELDS if _is_set(query, "full") else LIST_FIELDS)
    fields += [name for name in ("config", "cardData") if _is_set(query, name)]
    return {name: info[name] for name in fields if name in info}


def matches(info: Json, repository: Repository, query: Query) -> bool:
    """Say whether a model is in the list that was asked for."""
    checks: dict[str, Callable[[str], bool]] = {
        "search": lambda text: text.lower() in info["id"].lower(),
        "author": lambda name: name.lower() == author_of(repository).lower(),
        "filter": lambda tag: tag in (*info["tags"], info.get("library_name"), info.get("pipeline_tag")),
        "pipeline_tag": lambda task: task == info.get("pipeline_tag"),
        "apps": lambda app: app in apps_of(info, repository),
        "gated": lambda wanted: (wanted == "true") == bool(info["gated"]),
        "num_parameters": lambda bounds: within(bounds, parameters_of(info)),
    }
    return all(check(value) for name, check in checks.items() for value in query.get(name, []))


def apps_of(info: Json, repository: Repository) -> list[str]:
    """Return the programs a model is offered for."""
    if "apps" in repository.metadata:
        return list(repository.metadata["apps"])
    if "gguf" in info["tags"]:
        return ["llama.cpp", "ollama", "lmstudio", "vllm"]
    return ["vllm"] if info.get("pipeline_tag") == "text-generation" else []


def parameters_of(info: Json) -> int | None:
    """Return the number of parameters, as far as the Hub knows it."""
    known = info.get("safetensors") or info.get("gguf")
    return None if known is None else known["total"]


def within(bounds: str, count: int | None) -> bool:
    """Say whether a count is inside "min:6B,max:128B"; an unknown count never is."""
    if count is None:
        return False
    limits = dict(part.split(":", 1) for part in bounds.split(",") if ":" in part)
    return _number(limits.get("min", "0")) <= count <= _number(limits.get("max", "1000000B"))


def _number(text: str) -> float:
    units = {"K": 1e3, "M": 1e6, "B": 1e9}
    return float(text[:-1]) * units[text[-1].upper()] if text[-1:].upper() in units else float(text)


def _is_set(query: Query, name: str) -> bool:
    return query.get(name, ["false"])[0].lower() in ("true", "1")


def wire_time(moment: datetime) -> str:
    """Return a time as the Hub writes it, in UTC with milliseconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")
