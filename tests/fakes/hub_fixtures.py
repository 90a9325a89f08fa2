"""Fixtures around the fake Hub: the running hub, a plain client, and proof that no request goes elsewhere.

A test module imports what it uses; nothing here reaches tests that do not.
"""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import urllib3
from huggingface_hub import constants
from huggingface_hub.utils import _detect_agent

from tests.fakes.hub import FakeHub

LOOPBACK = {"127.0.0.1", "localhost", b"127.0.0.1", b"localhost"}


@pytest.fixture(name="strangers", autouse=True)
def no_strangers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[Any]]:
    """Point every default of huggingface_hub away from the network, and fail on any other host."""
    asked: list[Any] = []
    look_up = socket.getaddrinfo

    def look_up_loopback(host: Any, *rest: Any, **options: Any) -> Any:
        if host not in LOOPBACK:
            asked.append(host)
            raise OSError(f"{host} is not on this machine")
        return look_up(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up_loopback)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(tmp_path / "harnesses.json"))
    monkeypatch.setattr(_detect_agent, "_registry", {"standardEnvVars": [], "harnesses": {}})
    huggingface_hub.close_session()
    yield asked
    huggingface_hub.close_session()
    assert asked == []


@pytest.fixture(name="hub")
def running_hub() -> Iterator[FakeHub]:
    with FakeHub() as running:
        yield running


@pytest.fixture(name="http")
def plain_client() -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(10)) as pool:
        yield pool
