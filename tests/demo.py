"""Model Manager beside a small Hub of its own: `make demo`, or `python -m tests.demo`.

The Hub is the fake one of the tests, in this process, and slow enough that a download can be watched. Everything
else is `model-manager serve` as it stands. Nothing is fetched from any other machine.
"""

import argparse
import contextlib
import os
import signal
import sys
from pathlib import Path

from cli import main as model_manager
from core.repository import Digest, DigestKind, RepositoryFile
from core.selection import select_files
from core.settings import PREFIX
from tests.fakes.hub import FakeHub, demo_hub
from tests.fakes.hub_repository import Repository

STATE_DIR = ".model-manager-demo"
MEGABYTES_PER_SECOND = 12.0


def main() -> int:
    """Start the Hub, say what is on it, and serve until a signal comes; return serve's exit code."""
    arguments = _parser().parse_args()
    # Until serve takes the signals over there is nothing but this process, and after it only the Hub's thread.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        pace = arguments.megabytes_per_second * 1e6 or None
        with demo_hub(port=arguments.hub_port, bytes_per_second=pace) as hub:
            _point_at(hub)
            print(introduction(hub, state_dir=Path(os.environ[f"{PREFIX}STATE_DIR"])), flush=True)
            return model_manager(["serve"])
    return 130


def _parser() -> argparse.ArgumentParser:
    """Describe the arguments."""
    parser = argparse.ArgumentParser(prog="python -m tests.demo", description="Model Manager beside a Hub of its own.")
    parser.add_argument(
        "--megabytes-per-second",
        type=float,
        default=MEGABYTES_PER_SECOND,
        help="pace of all downloads together; 0 is as fast as it goes (default: %(default)g)",
    )
    parser.add_argument("--hub-port", type=int, default=0, help="port of the Hub; 0 takes a free one (default)")
    return parser


def _point_at(hub: FakeHub) -> None:
    """Set what serve reads: the Hub's address, the demo's own state directory, and no token of another Hub."""
    os.environ[f"{PREFIX}HUB_ENDPOINT"] = hub.url
    os.environ[f"{PREFIX}STATE_DIR"] = os.environ.get(f"{PREFIX}STATE_DIR") or STATE_DIR
    if os.environ.get(f"{PREFIX}HUB_TOKEN") not in hub.tokens:
        os.environ.pop(f"{PREFIX}HUB_TOKEN", None)
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1"]))


def introduction(hub: FakeHub, *, state_dir: Path) -> str:
    """Say what can be installed from this Hub and what cannot."""
    found = hub.repositories()
    width = max(len(repository.repo_id) for repository in found)
    has_token = f"{PREFIX}HUB_TOKEN" in os.environ
    pace = f"at {hub.bytes_per_second / 1e6:g} MB/s" if hub.bytes_per_second else "as fast as it goes"
    lines = [
        f"A small Hub for this demo is at {hub.url}; it sends files {pace}.",
        "",
        "These repositories can be installed:",
        *(_line(repository, width) for repository in found if has_token or not repository.gated),
    ]
    if not has_token:
        gated = [_line(repository, width) for repository in found if repository.gated]
        lines += [
            "",
            f"This one is gated; start with {PREFIX}HUB_TOKEN=hf_demo and it can be installed, too:",
            *gated,
        ]
    if (state_dir / "model-manager.db").exists():
        lines += [
            "",
            f"{state_dir} is there from an earlier start; a token from then is still good. For another one:",
            f"  {PREFIX}STATE_DIR={state_dir} {sys.executable} -m cli token create demo --scope ADMIN",
        ]
    return "\n".join([*lines, ""])


def _line(repository: Repository, width: int) -> str:
    """Show a repository and how much of it an install fetches."""
    files = [
        RepositoryFile(path, file.size_bytes, Digest(DigestKind.GIT_SHA1, file.oid))
        for path, file in repository.head.files.items()
    ]
    size = sum(file.size_bytes for file in select_files(files, include=None, exclude=()))
    return f"  {repository.repo_id:<{width}}  {size / 1e6:5.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
