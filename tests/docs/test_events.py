"""The document of the journal's events lists what the code can write, and nothing else."""

import re
from pathlib import Path

from core.event import EventType

DOCUMENT = Path(__file__).parents[2] / "docs" / "events.md"


def test_every_event_has_its_section_and_every_section_its_event() -> None:
    sections = re.findall(r"^### ([a-z.]+)$", DOCUMENT.read_text(), flags=re.MULTILINE)

    assert sections == [event.value for event in EventType]


def test_every_event_type_is_written_somewhere_in_the_code() -> None:
    root = DOCUMENT.parents[1]
    code = "".join(path.read_text() for room in ("db", "actors", "resolvers") for path in (root / room).rglob("*.py"))

    assert [event.name for event in EventType if f"EventType.{event.name}" not in code] == []
