"""GraphiQL against a running API, in a real browser; its examples against the schema. Needs Node.js."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.version import VERSION
from tests.servers.program import ROOT, Program, running_program

GRAPHIQL = ROOT / "ui" / "graphiql"
ADMIN_TOKEN = "an-admin-token-for-tests-only"

HAS_NODE = shutil.which("node") is not None and shutil.which("npm") is not None
HAS_CHROMIUM = sys.platform == "linux" or "CHROMIUM_PATH" in os.environ or shutil.which("chromium") is not None

pytestmark = [
    pytest.mark.skipif(not HAS_NODE, reason="node and npm are not on PATH: Node.js 20.19 or newer brings them"),
    pytest.mark.skipif(
        not (GRAPHIQL / "dist" / "index.html").is_file(), reason="GraphiQL is not built: `make graphiql` does that"
    ),
]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Program]:
    """Everything that `serve` runs, on a port that the system chooses."""
    settings = {
        "STATE_DIR": str(tmp_path / "state"),
        "PORT": "0",
        "METRICS_PORT": "0",
        "ADMIN_TOKEN": ADMIN_TOKEN,
    }
    with running_program("cli", "serve", printed=tmp_path / "printed", settings=settings) as program:
        yield program


def run_node(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run something of Node.js in GraphiQL's directory."""
    return subprocess.run(
        command,
        cwd=GRAPHIQL,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.skipif(not HAS_CHROMIUM, reason="there is no Chromium: name one by CHROMIUM_PATH")
def test_the_page_asks_with_the_token_and_watches_over_a_socket(api: Program) -> None:
    base_url = api.find(r"GraphQL +(http://\S+)/graphql")

    ran = run_node("node", "e2e/graphiql.mjs", BASE_URL=base_url, TOKEN=ADMIN_TOKEN)

    assert ran.returncode == 0, ran.stderr
    outcome = json.loads(ran.stdout)
    assert (outcome["ok"], outcome["version"], outcome["subscription"]) == (True, VERSION, "running")


def test_every_example_is_valid_against_the_schema() -> None:
    ran = run_node("npm", "test")

    assert ran.returncode == 0, ran.stdout
