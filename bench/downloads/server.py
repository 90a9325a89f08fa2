"""A static server that is faster than its clients: a thread a connection, bodies by sendfile, ranges, no more.

It also says what a Hub says of one repository, so that `huggingface_hub` and ours list and resolve alike: a redirect
from "resolve" to where the bytes are. Run as `python -m bench.downloads.server DIRECTORY`; it prints its address.
"""

import hashlib
import json
import os
import re
import socket
import sys
import threading
from pathlib import Path

COMMIT = "c" * 40
REPO = "bench/big"
RANGE = re.compile(rb"(?mi)^range: bytes=(\d+)-(\d*)\r$")


def digest_of(path: Path) -> str:
    """Read the digest that lies beside a file; compute it the first time."""
    beside = path.with_suffix(".sha256")
    if not beside.exists():
        with path.open("rb") as file:
            beside.write_text(hashlib.file_digest(file, "sha256").hexdigest())
    return beside.read_text()


class Site:
    """The repository's files and what is said of them."""

    def __init__(self, directory: Path) -> None:
        self.files = {
            path.name: (path, path.stat().st_size, digest_of(path)) for path in directory.glob("*.safetensors")
        }
        lfs = {
            name: {"sha256": sha, "oid": sha, "size": size, "pointerSize": 134}
            for name, (_, size, sha) in self.files.items()
        }
        siblings = [{"rfilename": n, "size": lfs[n]["size"], "blobId": "b" * 40, "lfs": lfs[n]} for n in sorted(lfs)]
        info = {"_id": "1", "id": REPO, "modelId": REPO, "sha": COMMIT, "private": False, "gated": False, "tags": []}
        info |= {"disabled": False, "downloads": 1, "likes": 1, "createdAt": "2026-01-01T00:00:00.000Z"}
        self.info = json.dumps(info | {"lastModified": "2026-01-01T00:00:00.000Z", "siblings": siblings}).encode()
        tree = [
            {"type": "file", "path": n, "size": lfs[n]["size"], "oid": "b" * 40, "lfs": lfs[n]} for n in sorted(lfs)
        ]
        self.tree = json.dumps(tree).encode()

    def answer(self, connection: socket.socket, head: bytes) -> None:
        """Answer one request."""
        method, target = head.split(b" ", 2)[:2]
        path = target.decode().split("?")[0]
        name = path.rsplit("/", 1)[-1]
        if path.startswith("/api/"):
            body = self.tree if "/tree/" in path else self.info
            connection.sendall(_head("200 OK", Content_Type="application/json", Content_Length=len(body)) + body)
        elif name not in self.files:
            connection.sendall(_head("404 Not Found", Content_Length=0))
        elif "/resolve/" in path:
            _, size, sha = self.files[name]
            said: dict[str, str | int] = {"X_Repo_Commit": COMMIT, "X_Linked_Etag": f'"{sha}"', "X_Linked_Size": size}
            connection.sendall(_head("302 Found", Location=f"/blobs/{name}", Content_Length=0, **said))
        else:
            self._send_file(connection, head, name, with_body=method == b"GET")

    def _send_file(self, connection: socket.socket, head: bytes, name: str, *, with_body: bool) -> None:
        path, size, sha = self.files[name]
        found = RANGE.search(head)
        start = int(found[1]) if found else 0
        end = int(found[2]) + 1 if found and found[2] else size
        said: dict[str, str | int] = {
            "ETag": f'"{sha}"',
            "X_Repo_Commit": COMMIT,
            "Accept_Ranges": "bytes",
            "Content_Length": end - start,
        }
        if found:
            said["Content_Range"] = f"bytes {start}-{end - 1}/{size}"
        connection.sendall(_head("206 Partial Content" if found else "200 OK", **said))
        if with_body:
            with path.open("rb") as file:
                while start < end:
                    start += os.sendfile(connection.fileno(), file.fileno(), start, min(end - start, 1 << 20))


def _head(status: str, **headers: str | int) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def serve(site: Site, connection: socket.socket) -> None:
    """Answer a connection's requests until it ends."""
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received = b""
        try:
            while True:
                while b"\r\n\r\n" not in received:
                    more = connection.recv(65536)
                    if not more:
                        return
                    received += more
                head, received = received.split(b"\r\n\r\n", 1)
                site.answer(connection, head + b"\r\n")
        except OSError:
            return


def main() -> None:
    site = Site(Path(sys.argv[1]))
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(site, connection), daemon=True).start()


if __name__ == "__main__":
    main()
