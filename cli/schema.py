"""`model-manager schema`: the contract, written from the code."""

import sys
from pathlib import Path

from graph.schema import build, text


def run(*, output: Path | None, check: Path | None) -> int:
    """Print the schema, write it to a file, or compare it with one."""
    written = text(build())
    if check is not None:
        if check.read_text() == written:
            return 0
        print(f"{check} does not say what the code says: run `make schema` and look at the difference", file=sys.stderr)
        return 1
    if output is not None:
        output.write_text(written)
    else:
        print(written, end="")
    return 0
