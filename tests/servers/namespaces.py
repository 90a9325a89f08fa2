"""Whether this system lets a process mount something that only it and its children see."""

import functools
import shutil
import subprocess


@functools.cache
def has_mount_namespaces() -> bool:
    """Tell whether `unshare -Urm` gives a process mounts of its own, as root or not."""
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0
