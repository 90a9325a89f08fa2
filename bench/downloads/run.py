"""Compare downloads from loopback: ours with sha256, huggingface_hub, curl and cp. See README.md beside this file."""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = 4
QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}


def make_sources(directory: Path, mebibytes: int) -> list[Path]:
    """Write files that do not compress, once."""
    directory.mkdir(parents=True)
    for number in range(FILES):
        with (directory / f"model-{number}.safetensors").open("wb") as file:
            for _ in range(mebibytes):
                file.write(os.urandom(1 << 20))
    return sorted(directory.glob("*.safetensors"))


def measure(command: list[str], environment: dict[str, str]) -> tuple[float, float, float]:
    """Run a command; return its wall seconds (its own, where it prints them), CPU seconds and peak memory in MiB."""
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    said, complaint = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, complaint.decode()
    wall = float(said) if said.strip() else time.monotonic() - began
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.downloads.run", description=__doc__)
    parser.add_argument("--mebibytes", type=int, default=256, help="size of each of the four files")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured; the median counts")
    parser.add_argument("--directory", type=Path, default=None, help="where to work; a temporary directory by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as temporary:
        base, out = Path(temporary), Path(temporary) / "out"
        sources = make_sources(base / "sources", arguments.mebibytes)
        environment = {**os.environ, **QUIET, "PYTHONPATH": str(ROOT), "HF_HOME": str(base / "hf")}
        server = subprocess.Popen(
            [sys.executable, "-m", "bench.downloads.server", str(base / "sources")],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            curl = ["curl", "-sf", "--remote-name-all", "--output-dir", str(out)]
            ways = {
                "ours, sha256, fsync": [sys.executable, "-m", "bench.downloads.ours", url, str(out)],
                "huggingface_hub, unverified": [sys.executable, "-m", "bench.downloads.theirs", url, str(out)],
                "curl, one after the other": [*curl, *(f"{url}/blobs/{path.name}" for path in sources)],
                "curl, four at once": [*curl, "-Z", *(f"{url}/blobs/{path.name}" for path in sources)],
                "cp": ["cp", *map(str, sources), str(out)],
                "cp, then sync": ["sh", "-c", f"cp {base}/sources/*.safetensors {out} && sync -f {out}"],
            }
            compare(ways, out, environment, rounds=arguments.rounds)
        finally:
            server.terminate()
            server.wait()


def compare(ways: dict[str, list[str]], out: Path, environment: dict[str, str], *, rounds: int) -> None:
    """Measure each way in turn, so many times; print the medians and what they are to `cp`."""
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, command in ways.items():
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            subprocess.run(["sync", "-f", str(out)], check=True)
            found[name].append(measure(command, environment))
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    print("| way | wall s | ratio to cp | CPU s | peak MiB |\n|---|---|---|---|---|")
    for name, (wall, cpu, memory) in medians.items():
        print(f"| {name} | {wall:.2f} | {wall / medians['cp'][0]:.2f} | {cpu:.2f} | {memory:.0f} |")


if __name__ == "__main__":
    main()
