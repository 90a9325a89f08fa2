"""Install the benchmark's repository as a worker does, without its database: list, fetch, verify, publish.

`python -m bench.downloads.ours ENDPOINT DIRECTORY`; prints the seconds behind the imports.
"""

import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import huggingface_hub  # noqa: F401 - a worker has it loaded

from actors.control import RunControl
from actors.download import FileTransfer
from actors.room import ConnectionRoom
from actors.source import FileSource
from core.hub import Hub
from core.ids import new_id
from core.manifest import Manifest
from core.storage import WeightsVolume
from db.runs import Claim

REPO = "bench/big"


def main() -> None:
    endpoint, directory = sys.argv[1:]
    volume, hub, job_id, room = (
        WeightsVolume(Path(directory)),
        Hub(endpoint=endpoint, token=None),
        new_id(),
        ConnectionRoom(),
    )
    volume.prepare()
    began = time.monotonic()
    snapshot = hub._snapshot(REPO, "main")  # noqa: SLF001 - without an event loop
    source = FileSource(hub, repo_id=REPO, commit=snapshot.commit, connections=room.most)
    control = RunControl(Claim(job_id, 1), lease_seconds=3600)
    transfers = [
        FileTransfer(
            volume=volume,
            source=source,
            job_id=job_id,
            number=number,
            file=file,
            commit=snapshot.commit,
            control=control,
            log=lambda _: None,
            room=room,
        )
        for number, file in enumerate(snapshot.files)
    ]
    threads = [threading.Thread(target=transfer.run) for transfer in transfers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(transfer.counter.is_verified for transfer in transfers)
    manifest = Manifest(
        repo_id=REPO,
        requested_revision="main",
        commit=snapshot.commit,
        files=snapshot.files,
        installed_at=datetime.now(UTC),
        version="bench",
    )
    volume.publish(job_id, REPO, manifest, replace=False)
    print(time.monotonic() - began)


if __name__ == "__main__":
    main()
