"""The README's tour is run as it stands, and what it shows is what is printed. Links lead somewhere."""

import os
import re
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers.program import ROOT, Program, running_program

README = (ROOT / "README.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "chart/README.md", ROOT / "bench/README.md"])
BLOCK = re.compile(r"^```(bash|json|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
READY = r"GraphQL +(http://\S+)/graphql"
TOKEN = r"Admin token +(mm_\S+)"
ANY_PORT = {"PORT": "0", "METRICS_PORT": "0"}


@dataclass(frozen=True)
class Step:
    """Some commands of the tour, and what it says that they print; None where it says nothing."""

    commands: str
    shown: str | None


def tour() -> list[Step]:
    """Read the steps of the tour out of the README."""
    section = README.partition("\n## A tour of two minutes\n")[2].partition("\n## ")[0]
    steps: list[Step] = []
    for language, text in BLOCK.findall(section):
        if language == "bash":
            steps.append(Step(text, None))
        else:
            steps[-1] = Step(steps[-1].commands, text)
    return steps


def pattern_of(shown: str) -> str:
    """Make a pattern of what is shown: `…` is any part of a line, and any number of lines where it stands alone."""
    lines = [
        r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + r"\n" for line in shown.splitlines()
    ]
    return "".join(lines)


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def demo(tmp_path: Path, state_dir: Path) -> Iterator[Program]:
    """The demo, a little faster than for people: slow enough that a job can be cancelled on its way."""
    settings = {**ANY_PORT, "STATE_DIR": str(state_dir)}
    arguments = ("tests.demo", "--megabytes-per-second", "40")
    with running_program(*arguments, printed=tmp_path / "printed", settings=settings) as program:
        yield program


def test_the_tour_prints_what_the_readme_shows(demo: Program, tmp_path: Path, state_dir: Path) -> None:
    stand_ins = {
        "http://127.0.0.1:8080": demo.find(READY),
        "mm_…": demo.find(TOKEN),
        ".model-manager-demo": str(state_dir),
        ".venv/bin/python": sys.executable,
    }
    steps = tour()
    script = "set -euo pipefail\n" + "".join(f"{step.commands}printf '\\f'\n" for step in steps)
    for written, real in stand_ins.items():
        assert written in script
        script = script.replace(written, real)

    ran = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    printed = ran.stdout.split("\f")
    for step, output in zip(steps, printed, strict=False):
        assert re.fullmatch(pattern_of(step.shown or ""), output), f"{step.commands}\nprinted\n{output}"
    assert len(printed) == len(steps) + 1
    assert demo.stop() == 0


def test_the_examples_of_the_api_page_work(demo: Program, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    commands = "".join(re.findall(r"^```bash\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    script = "".join(re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    environment = {**os.environ, "URL": demo.find(READY), "TOKEN": demo.find(TOKEN)}
    install = """curl -sS "$URL/graphql" -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" \\
      --data '{"query": "mutation { installWeights(input: {repoId: \\"demo/tiny-gguf\\"}) { outcome } }"}'"""

    watching = subprocess.Popen(
        [sys.executable, "-u", "-c", script], env=environment, stdout=subprocess.PIPE, text=True
    )
    answers = subprocess.run(
        ["bash", "-euc", f"{commands}\n{install}"], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert watching.stdout is not None
    last = next(line for line in watching.stdout if " SUCCEEDED " in line)
    watching.terminate()
    watching.communicate()

    assert answers == (
        '{"data":{"jobs":{"totalCount":0}}}'
        '{"data":{"weightSets":{"nodes":[],"pageInfo":{"hasNextPage":false,"endCursor":null}}}}'
        '{"data":{"installWeights":{"outcome":"STARTED"}}}'
    )
    assert re.fullmatch(r"Job:\S+ SUCCEEDED 1.0\n", last)


def test_the_demo_says_what_can_be_installed_and_what_is_gated(demo: Program) -> None:
    demo.find(TOKEN)

    introduction = demo.printed.partition("Model Manager is ready.")[0]
    can_be, is_gated = introduction.split("This one is gated")
    assert re.findall(r"^  (\S+) +([\d.]+) MB$", can_be, re.MULTILINE) == [
        ("sentence-transformers/all-MiniLM-L6-v2", "91.6"),
        ("demo/tiny-chat", "6.8"),
        ("demo/tiny-gguf", "3.4"),
        ("demo/pickle-only", "1.5"),
    ]
    assert re.findall(r"^  (\S+) +([\d.]+) MB$", is_gated, re.MULTILINE) == [("demo/gated-chat", "6.8")]


def test_the_demo_ends_with_serves_exit_code_when_serve_cannot_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = {**ANY_PORT, "STATE_DIR": str(tmp_path / "file")}

    with running_program("tests.demo", printed=tmp_path / "printed", settings=settings) as demo:
        code = demo.process.wait(20)

    assert code == 1
    assert "MODEL_MANAGER_STATE_DIR is not usable" in demo.printed
    assert "Traceback" not in demo.printed


def test_the_readme_shows_something_for_every_step_that_prints() -> None:
    silent = [step.commands for step in tour() if step.shown is None]

    assert silent == ["export URL=http://127.0.0.1:8080\nexport TOKEN=mm_…\n"]


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_relative_link_leads_to_a_file_that_exists(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not urllib.parse.urlsplit(link).scheme]

    broken = [link for link in links if not leads_somewhere(page, link)]

    assert broken == []


def leads_somewhere(page: Path, link: str) -> bool:
    """Tell whether a link's file is there and has the heading that the link names."""
    path, _, anchor = link.partition("#")
    target = (page.parent / path) if path else page
    if not target.exists():
        return False
    return not anchor or anchor in anchors_of(target.read_text())


def anchors_of(text: str) -> set[str]:
    """Name the headings of a page as forges do."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
