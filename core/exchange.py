"""Swap two names in one step: Linux's renameat2 with RENAME_EXCHANGE, which Python's os does not offer.

Source: renameat2(2); file systems that cannot do it answer EINVAL, kernels and C libraries without it ENOSYS.
"""

import ctypes
import errno
import os
from functools import cache
from typing import Any

RENAME_EXCHANGE = 2
CANNOT = frozenset({errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP})


def exchange(first: str, second: str, *, first_directory: int, second_directory: int) -> bool:
    """Let two entries change places, both there at every moment; False when this system cannot.

    Raises: OSError, FileNotFoundError among them when one is not there.
    """
    call = _renameat2()
    if call is None:
        return False
    if call(first_directory, os.fsencode(first), second_directory, os.fsencode(second), RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in CANNOT:
        return False
    raise OSError(number, os.strerror(number), first)


@cache
def _renameat2() -> Any:
    """Find the C library's function; None where it has none."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return call
