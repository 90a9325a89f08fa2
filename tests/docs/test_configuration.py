"""The tables of settings say what core/settings.py says, line by line."""

import re

import pytest

from core.settings import PREFIX, Settings
from tests.servers.program import ROOT

ROW = re.compile(r"^\| `(MODEL_MANAGER_[A-Z_]+)` \| (.*?) \| (.*) \|$", re.MULTILINE)
PAGES = ["README.md", "docs/configuration.md"]


def row_of(name: str) -> tuple[str, str, str]:
    """Say what a setting's row has to be: its variable, its default, its meaning."""
    field = Settings.model_fields[name]
    default = "" if field.default is None else f"`{field.default}`"
    return f"{PREFIX}{name.upper()}", default, field.description or ""


@pytest.mark.parametrize("page", PAGES)
def test_the_table_has_a_row_for_every_setting_in_their_order(page: str) -> None:
    expected = [row_of(name) for name in Settings.model_fields]

    rows = [(variable, default.strip(), meaning) for variable, default, meaning in ROW.findall(_text(page))]

    lines = [f"| `{variable}` | {default} | {meaning} |" for variable, default, meaning in expected]
    assert rows == expected, "the table should be:\n" + "\n".join(lines)


@pytest.mark.parametrize("page", [*PAGES, "docs/architecture.md", "docs/api.md"])
def test_no_page_names_a_variable_that_is_not_a_setting(page: str) -> None:
    known = {row_of(name)[0] for name in Settings.model_fields}

    named = set(re.findall(rf"\b{PREFIX}[A-Z_]*[A-Z]", _text(page)))

    assert named - known == set()


def _text(page: str) -> str:
    return (ROOT / page).read_text()
