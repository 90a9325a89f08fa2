"""Every step of an install by name, so that a test can end the process at each of them.

`CRASH_AT=<name>` in the environment ends a process there as SIGKILL would: no cleaning up, no last words.
"""

import os
from enum import StrEnum

CRASHED = 137
"""The exit code of a process that was killed."""


class CrashPoint(StrEnum):
    """The steps, in the order in which an install takes them."""

    CLAIMED = "claimed"
    PLAN_ASKED = "plan-asked"
    PLAN_WRITTEN = "plan-written"
    BYTES_WRITTEN = "bytes-written"
    BYTES_SAFE = "bytes-safe"
    PART_NOTED = "part-noted"
    FILE_VERIFIED = "file-verified"
    FILE_MOVED = "file-moved"
    FILES_WHOLE = "files-whole"
    MANIFEST_WRITTEN = "manifest-written"
    SET_RENAMED = "set-renamed"
    SET_PUBLISHED = "set-published"
    RESULT_WRITTEN = "result-written"
    RESULT_COMMITTED = "result-committed"


def reached(point: CrashPoint) -> None:
    """End the process when this is where it shall crash."""
    if os.environ.get("CRASH_AT") == point:
        os._exit(CRASHED)
