"""`token create`: a name that could deceive makes no token."""

from pathlib import Path

import pytest

from cli.token import create
from core.settings import Settings


@pytest.mark.parametrize("name", ["", "a\u202eb", "x" * 65])
def test_a_name_that_could_deceive_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = create(Settings(state_dir=tmp_path), name=name, scope="READ")

    printed = capsys.readouterr()
    assert (code, printed.out) == (2, "")
    assert printed.err.startswith("A token's name has 1 to 64 printable characters")
    assert list(tmp_path.iterdir()) == []
