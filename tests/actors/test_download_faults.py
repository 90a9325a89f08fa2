"""One file from a source that misbehaves: each fault ends in the right bytes, or in a failure that says what it was."""

import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from actors.control import RunStopped
from actors.download import Patience
from core.errors import JobErrorCode, JobFailure
from core.hub import AccessOutcome, HubError
from tests.actors.transfers import (
    CUT,
    FILE,
    REPO,
    SIZE,
    WEIGHTS,
    Parrot,
    Running,
    Staging,
    head,
    ranges,
    small,
    staging_for,
    wait_for,
    weights,
)
from tests.fakes.hub import FakeHub, Fault, TokenInfo
from tests.fakes.hub_fixtures import no_strangers, running_hub  # noqa: F401

CONFIG = b'{"a": 1}'
REST = f"bytes={CUT}-"


@pytest.fixture
def staging(hub: FakeHub, tmp_path: Path) -> Iterator[Staging]:
    commit = hub.add_repository(REPO, {FILE: WEIGHTS, "config.json": CONFIG})
    with staging_for(tmp_path / "weights", endpoint=hub.url, commit=commit) as made:
        yield made


def failure_of(staging: Staging, **options: Any) -> JobFailure:
    with pytest.raises(JobFailure) as failed:
        staging.transfer(**options).run()
    assert staging.fetched == {}
    return failed.value


def cut_once(hub: FakeHub) -> None:
    hub.faults.add(Fault.EARLY_CLOSE, path=FILE, times=1, after_bytes=CUT)


# ---------------------------------------------------------------- bodies


def test_a_stall_ends_in_a_new_request_at_the_same_offset(hub: FakeHub, staging: Staging) -> None:
    hub.faults.add(Fault.STALL, path=FILE, times=1, after_bytes=CUT)

    staging.transfer().run()

    assert ranges(hub) == [None, REST]
    assert hub.bytes_served() == SIZE
    assert staging.fetched == {FILE: WEIGHTS}


def test_an_early_close_ends_in_a_new_request_at_the_same_offset(hub: FakeHub, staging: Staging) -> None:
    hub.faults.add(Fault.EARLY_CLOSE, path=FILE, times=2, after_bytes=CUT)

    staging.transfer().run()

    assert ranges(hub) == [None, REST, f"bytes={2 * CUT}-"]
    assert hub.bytes_served() == SIZE
    assert staging.fetched == {FILE: WEIGHTS}


def test_closes_that_bring_bytes_each_time_use_up_no_patience(hub: FakeHub, staging: Staging) -> None:
    hub.faults.add(Fault.EARLY_CLOSE, path=FILE, after_bytes=250_000)

    staging.transfer().run()

    assert len(ranges(hub)) == 12
    assert hub.bytes_served() == SIZE
    assert staging.fetched == {FILE: WEIGHTS}


def test_closes_without_a_byte_end_in_a_failure_that_is_tried_again(hub: FakeHub, staging: Staging) -> None:
    hub.faults.add(Fault.EARLY_CLOSE, path=FILE, after_bytes=0)

    failed = failure_of(staging)

    assert (failed.code, failed.retryable) == (JobErrorCode.HUB_UNAVAILABLE, True)
    assert "5 times in a row without a byte" in str(failed)
    assert ranges(hub) == [None] * 5


def test_an_answer_that_is_short_from_its_head_on_is_asked_for_once_more(hub: FakeHub, staging: Staging) -> None:
    hub.faults.add(Fault.TRUNCATE, path=FILE, times=1, after_bytes=CUT)

    staging.transfer().run()

    assert ranges(hub) == [None, None]
    assert staging.fetched == {FILE: WEIGHTS}


def test_a_rest_that_is_short_is_gone_on_with(hub: FakeHub, staging: Staging) -> None:
    cut_once(hub)
    hub.faults.add(Fault.TRUNCATE, path=FILE, times=1, skip=1, after_bytes=CUT)

    staging.transfer().run()

    assert ranges(hub) == [None, REST, f"bytes={2 * CUT}-"]
    assert hub.bytes_served() == SIZE
    assert staging.fetched == {FILE: WEIGHTS}


def test_an_answer_that_stays_short_means_other_content(hub: FakeHub, staging: Staging) -> None:
    hub.faults.add(Fault.TRUNCATE, path=FILE, after_bytes=CUT)

    failed = failure_of(staging)

    assert (failed.code, failed.retryable) == (JobErrorCode.UPSTREAM_CHANGED, False)
    assert f"{CUT} bytes instead of {SIZE}" in str(failed)
    assert ranges(hub) == [None, None]


def test_a_longer_body_is_asked_for_once_more(hub: FakeHub, staging: Staging) -> None:
    hub.faults.add(Fault.LONGER, path=FILE, times=1, extra_bytes=7)

    staging.transfer().run()

    assert ranges(hub) == [None, None]
    assert staging.fetched == {FILE: WEIGHTS}


def test_bytes_behind_the_end_of_a_rest_are_left_alone(hub: FakeHub, staging: Staging) -> None:
    cut_once(hub)
    hub.faults.add(Fault.LONGER, path=FILE, times=1, skip=1, extra_bytes=7)

    staging.transfer().run()

    assert ranges(hub) == [None, REST]
    assert staging.fetched == {FILE: WEIGHTS}


def test_a_wrong_byte_makes_the_file_be_fetched_once_more(hub: FakeHub, staging: Staging) -> None:
    hub.faults.add(Fault.FLIP_BYTE, path=FILE, times=1, offset=5)

    transfer = staging.transfer().run()

    assert hub.bytes_served() == transfer.counter.received == 2 * SIZE
    assert staging.fetched == {FILE: WEIGHTS}
    assert any(line.endswith("; fetching it once more") for line in staging.lines)


def test_a_byte_that_is_wrong_twice_is_corruption_and_nothing_is_kept(hub: FakeHub, staging: Staging) -> None:
    hub.faults.add(Fault.FLIP_BYTE, path=FILE, offset=SIZE - 1)
    wrong = weights(content=WEIGHTS[:-1] + bytes([WEIGHTS[-1] ^ 0xFF])).digest.value

    failed = failure_of(staging)

    assert (failed.code, failed.retryable) == (JobErrorCode.CORRUPT, False)
    assert str(failed) == f"{FILE}: sha256 {weights().digest.value} was wanted and {wrong} came"
    assert hub.bytes_served() == 2 * SIZE
    assert ranges(hub) == [None, None]
    assert not (staging.directory / "files").exists()


def test_a_retry_after_corruption_begins_at_zero(hub: FakeHub, staging: Staging) -> None:
    flip = hub.faults.add(Fault.FLIP_BYTE, path=FILE, offset=5)
    failure_of(staging)
    hub.faults.remove(flip)

    staging.transfer().run()

    assert ranges(hub) == [None, None, None]
    assert staging.fetched == {FILE: WEIGHTS}


# ---------------------------------------------------------------- ranges and changed content


def test_content_that_changes_midway_and_back_is_fetched_again(hub: FakeHub, staging: Staging) -> None:
    cut_once(hub)
    hub.faults.add(Fault.CHANGED, path=FILE, times=1, skip=1)

    staging.transfer().run()

    assert ranges(hub) == [None, REST, None]
    assert staging.fetched == {FILE: WEIGHTS}


def test_content_that_has_changed_midway_is_given_up_after_one_more_try(hub: FakeHub, staging: Staging) -> None:
    cut_once(hub)
    hub.faults.add(Fault.CHANGED, path=FILE, skip=1)

    failed = failure_of(staging)

    assert (failed.code, failed.retryable) == (JobErrorCode.UPSTREAM_CHANGED, False)
    assert failed.hint is not None
    assert ranges(hub) == [None, REST, None]


def test_a_rest_under_another_etag_is_not_appended(tmp_path: Path) -> None:
    content = b"0123456789"
    first = head("200 OK", Content_Length=10, ETag='"one"') + content[:4]
    other = head("206 Partial Content", Content_Length=6, Content_Range="bytes 4-9/10", ETag='"two"') + b"abcdef"
    whole = head("200 OK", Content_Length=10, ETag='"two"') + content
    with (
        Parrot([first, other, whole]) as parrot,
        staging_for(tmp_path, endpoint=parrot.url) as staging,
    ):
        staging.transfer(small("config.json", content)).run()

        assert ["Range: bytes=4-" in request for request in parrot.requests] == [False, True, False]
        assert any("it has other content now, by its ETag" in line for line in staging.lines)
        assert staging.fetched == {"config.json": content}


def test_a_whole_file_in_place_of_the_rest_begins_at_zero(hub: FakeHub, staging: Staging) -> None:
    cut_once(hub)
    hub.faults.add(Fault.IGNORE_RANGE, path=FILE, times=1)

    staging.transfer().run()

    assert ranges(hub) == [None, REST, None]
    assert staging.fetched == {FILE: WEIGHTS}


def test_a_range_that_was_not_asked_for_is_refused(hub: FakeHub, staging: Staging) -> None:
    cut_once(hub)
    hub.faults.add(Fault.WRONG_CONTENT_RANGE, path=FILE, times=1)

    staging.transfer().run()

    assert ranges(hub) == [None, REST, None]
    assert staging.fetched == {FILE: WEIGHTS}


def test_416_begins_at_zero(hub: FakeHub, staging: Staging) -> None:
    cut_once(hub)
    hub.faults.add(Fault.RANGE_NOT_SATISFIABLE, path=FILE, times=1)

    staging.transfer().run()

    assert ranges(hub) == [None, REST, None]
    assert hub.bytes_served() == CUT + SIZE
    assert staging.fetched == {FILE: WEIGHTS}


def test_another_commit_is_not_taken_for_ours(hub: FakeHub, staging: Staging) -> None:
    staging.commit = "main"

    failed = failure_of(staging)

    assert failed.code is JobErrorCode.UPSTREAM_CHANGED
    assert "instead of main" in str(failed)
    assert hub.bytes_served() == 0


def test_a_file_that_is_gone_from_the_repository_is_final(hub: FakeHub, staging: Staging) -> None:
    failed = failure_of(staging, file=small("nothing.json", b"{}"))

    assert (failed.code, failed.retryable) == (JobErrorCode.UPSTREAM_CHANGED, False)
    assert str(failed) == "nothing.json is not in the repository any more"
    assert len(hub.requests) == 1


# ---------------------------------------------------------------- busy sources


@pytest.mark.parametrize("place", ["resolve", "cdn"])
@pytest.mark.parametrize("kind", [Fault.TOO_MANY_REQUESTS, Fault.UNAVAILABLE])
def test_the_seconds_that_a_busy_source_asks_for_are_waited(
    hub: FakeHub, staging: Staging, kind: Fault, place: Any
) -> None:
    fault = hub.faults.add(kind, at=place, times=1, retry_after=1)

    began = time.monotonic()
    staging.transfer().run()

    assert 1.0 <= time.monotonic() - began < 3.0
    assert fault.hits == 1
    assert staging.fetched == {FILE: WEIGHTS}


def test_the_date_that_a_busy_source_asks_for_is_waited_for(hub: FakeHub, staging: Staging) -> None:
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
    hub.faults.add(Fault.UNAVAILABLE, at="resolve", times=1, retry_after=until)

    staging.transfer().run()

    assert until <= datetime.now(UTC) < until + timedelta(seconds=2)
    assert staging.fetched == {FILE: WEIGHTS}


def test_the_end_of_the_window_that_a_429_names_is_waited_for(hub: FakeHub, staging: Staging) -> None:
    hub.faults.add(Fault.TOO_MANY_REQUESTS, at="resolve", times=1, rate_limit_reset_seconds=1)

    began = time.monotonic()
    staging.transfer().run()

    assert 1.0 <= time.monotonic() - began < 3.0


@pytest.mark.parametrize("retry_after", [None, "soon", "-5", "nan"])
def test_a_busy_source_that_says_nothing_useful_is_asked_again_after_a_back_off(
    hub: FakeHub, staging: Staging, retry_after: str | None
) -> None:
    hub.faults.add(Fault.UNAVAILABLE, at="resolve", times=3, retry_after=retry_after)

    began = time.monotonic()
    staging.transfer().run()

    assert time.monotonic() - began < 1.0
    assert staging.fetched == {FILE: WEIGHTS}


def test_no_source_is_waited_for_longer_than_patience_allows(hub: FakeHub, staging: Staging) -> None:
    hub.faults.add(Fault.TOO_MANY_REQUESTS, at="resolve", times=1, retry_after=86_400)

    began = time.monotonic()
    staging.transfer(patience=Patience(max_back_off_seconds=0.2)).run()

    assert 0.2 <= time.monotonic() - began < 2.0


def test_a_source_that_stays_busy_fails_for_now_and_hands_on_what_it_asked_for(hub: FakeHub, staging: Staging) -> None:
    fault = hub.faults.add(Fault.TOO_MANY_REQUESTS, at="resolve", retry_after=120)

    failed = failure_of(staging, patience=Patience(max_back_off_seconds=0.01))

    assert (failed.code, failed.retryable, failed.retry_after_seconds) == (JobErrorCode.HUB_UNAVAILABLE, True, 120.0)
    assert "the source answered 429, 5 times in a row" in str(failed)
    assert fault.hits == 5


def test_headers_that_do_not_come_in_time_are_asked_for_again(hub: FakeHub, staging: Staging) -> None:
    delay = hub.faults.add(Fault.DELAY, at="cdn", times=1, seconds=30)

    began = time.monotonic()
    staging.transfer(patience=Patience(header_seconds=0.3, min_back_off_seconds=0.02)).run()

    assert time.monotonic() - began < 2.0
    assert delay.hits == 1
    assert staging.fetched == {FILE: WEIGHTS}


def test_a_source_that_is_not_there_fails_for_now(hub: FakeHub, staging: Staging) -> None:
    hub.stop()

    failed = failure_of(staging)

    assert (failed.code, failed.retryable) == (JobErrorCode.HUB_UNAVAILABLE, True)
    hub.start()
    staging.transfer().run()
    assert staging.fetched == {FILE: WEIGHTS}


def test_a_stall_is_noticed_on_a_connection_that_its_server_is_about_to_close(tmp_path: Path) -> None:
    content = b"0123456789"
    stalled = head("200 OK", Content_Length=10) + content[:4]
    rest = head("206 Partial Content", Content_Length=6, Content_Range="bytes 4-9/10") + content[4:]
    with Parrot([stalled, rest]) as parrot, staging_for(tmp_path, endpoint=parrot.url) as staging:
        began = time.monotonic()
        staging.transfer(small("config.json", content), patience=Patience(header_seconds=30.0, stall_seconds=0.3)).run()

        assert time.monotonic() - began < 2.0
        assert staging.fetched == {"config.json": content}


def test_a_stop_wakes_a_read_on_a_connection_that_its_server_is_about_to_close(tmp_path: Path) -> None:
    with (
        Parrot([head("200 OK", Content_Length=10) + b"0123"]) as parrot,
        staging_for(tmp_path, endpoint=parrot.url) as staging,
    ):
        running = Running(staging.transfer(small("config.json", b"0123456789"), patience=Patience()))
        wait_for(lambda: running.transfer.counter.done == 4)

        seconds = running.stop()

        assert seconds < 1.0
        assert isinstance(running.error, RunStopped)


# ---------------------------------------------------------------- redirects


def test_a_redirect_loop_is_left_after_five_redirects(hub: FakeHub, staging: Staging) -> None:
    hub.faults.add(Fault.REDIRECT_LOOP, path=FILE)

    failed = failure_of(staging)

    assert (failed.code, failed.retryable) == (JobErrorCode.HUB_UNAVAILABLE, False)
    assert str(failed) == f"{FILE}: more than 5 redirects"
    assert [record.status for record in hub.requests] == [302] * 6


@pytest.mark.parametrize("path", [FILE, "config.json"])
def test_the_credential_goes_to_the_hub_and_to_no_other_host(tmp_path: Path, path: str) -> None:
    with FakeHub(cdn_host="localhost") as hub:
        hub.tokens["hf_x"] = TokenInfo("reader")
        commit = hub.add_repository(REPO, {FILE: WEIGHTS, "config.json": CONFIG})
        hub.faults.add(Fault.REDIRECT, path="config.json")
        file = weights() if path == FILE else small(path, CONFIG)
        with staging_for(tmp_path, endpoint=hub.url, commit=commit, token="hf_x") as staging:
            staging.transfer(file).run()

            assert list(staging.fetched) == [path]
            assert [
                (each.headers["host"].split(":")[0], each.headers.get("authorization")) for each in hub.requests
            ] == [
                ("127.0.0.1", "Bearer hf_x"),
                ("localhost", None),
            ]


@pytest.mark.parametrize(
    "location",
    [
        None,
        "ftp://127.0.0.1/file",
        "file:///etc/passwd",
        "http://[::1",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:x/",
        "http://" + "a" * 70 + ".example/",
        "http://127.0.0.1\\@evil.example/",
        "http://127.0.0.1\t.evil.example/",
        "javascript:alert(1)",
    ],
)
def test_a_redirect_to_what_is_no_address_is_final(tmp_path: Path, location: str | None) -> None:
    headers = {} if location is None else {"Location": location}
    with (
        Parrot([head("302 Found", Content_Length=0, **headers)]) as parrot,
        staging_for(tmp_path, endpoint=parrot.url, token="hf_x") as staging,
    ):
        failed = failure_of(staging)

        assert (failed.code, failed.retryable) == (JobErrorCode.HUB_UNAVAILABLE, False)
        assert len(parrot.requests) == 1


def test_a_redirect_with_an_endless_body_is_followed_without_reading_it(tmp_path: Path, hub: FakeHub) -> None:
    commit = hub.add_repository(REPO, {"config.json": CONFIG})
    target = f"{hub.url}/{REPO}/resolve/{commit}/config.json"
    with (
        Parrot([head("302 Found", Content_Length=10**12, Location=target) + b"x" * 1000]) as parrot,
        staging_for(tmp_path, endpoint=parrot.url, commit=commit) as staging,
    ):
        began = time.monotonic()
        staging.transfer(small("config.json", CONFIG)).run()

        assert time.monotonic() - began < 1.0
        assert staging.fetched == {"config.json": CONFIG}


@contextmanager
def tls_server(directory: Path, location: str) -> Iterator[tuple[str, Path]]:
    """Serve redirects over TLS; give its address and the certificate that vouches for it."""
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)

    class Redirects(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with HTTPServer(("127.0.0.1", 0), Redirects) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"https://localhost:{server.server_address[1]}", certificate
        server.shutdown()
        thread.join()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_redirect_from_https_to_http_is_not_followed(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.add_repository(REPO, {"config.json": CONFIG})
    target = f"{hub.url}/{REPO}/resolve/{commit}/config.json"
    with tls_server(tmp_path, target) as (endpoint, certificate):
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with staging_for(tmp_path / "weights", endpoint=endpoint, commit=commit, token="hf_x") as staging:
            failed = failure_of(staging, file=small("config.json", CONFIG))

            assert (failed.code, failed.retryable) == (JobErrorCode.HUB_UNAVAILABLE, False)
            assert "not safe to follow" in str(failed)
            assert hub.requests == []


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("cdn_host", [None, "localhost"])
def test_a_signed_address_that_ran_out_is_asked_for_anew(tmp_path: Path, cdn_host: str | None) -> None:
    with FakeHub(cdn_host=cdn_host) as hub:
        commit = hub.add_repository(REPO, {FILE: WEIGHTS})
        hub.faults.add(Fault.EXPIRED_URL, path=FILE, times=2)
        with staging_for(tmp_path, endpoint=hub.url, commit=commit) as staging:
            staging.transfer().run()

            assert [record.status for record in hub.requests] == [302, 403, 302, 403, 302, 200]
            assert staging.fetched == {FILE: WEIGHTS}


def test_signed_addresses_that_are_never_good_fail_for_now(hub: FakeHub, staging: Staging) -> None:
    hub.signed_url_seconds = -1.0

    failed = failure_of(staging)

    assert (failed.code, failed.retryable) == (JobErrorCode.HUB_UNAVAILABLE, True)
    assert "its address may have run out" in str(failed)
    assert [record.status for record in hub.requests] == [302, 403] * 5


@pytest.mark.parametrize(
    ("token", "access"), [(None, AccessOutcome.TOKEN_MISSING), ("hf_x", AccessOutcome.TERMS_NOT_ACCEPTED)]
)
def test_a_gate_that_is_closed_is_final_and_names_the_page(
    hub: FakeHub, tmp_path: Path, token: str | None, access: AccessOutcome
) -> None:
    hub.tokens["hf_x"] = TokenInfo("reader")
    commit = hub.add_repository(REPO, {FILE: WEIGHTS}, gated="manual")
    with staging_for(tmp_path, endpoint=hub.url, commit=commit, token=token) as staging:
        failed = failure_of(staging)

    assert isinstance(failed, HubError)
    assert (failed.code, failed.retryable, failed.access) == (JobErrorCode.HUB_ACCESS_DENIED, False, access)
    assert failed.url == f"{hub.url}/{REPO}"
    assert f"{hub.url}/{REPO}" in str(failed.hint)
    assert len(hub.requests) == 1


def test_a_bad_token_is_final_names_the_page_and_is_not_repeated(hub: FakeHub, tmp_path: Path) -> None:
    commit = hub.add_repository(REPO, {FILE: WEIGHTS})
    with staging_for(tmp_path, endpoint=hub.url, commit=commit, token="hf_wrong") as staging:
        failed = failure_of(staging)

        assert isinstance(failed, HubError)
        assert (failed.code, failed.retryable) == (JobErrorCode.HUB_ACCESS_DENIED, False)
        assert (failed.access, failed.url) == (AccessOutcome.TOKEN_INVALID, f"{hub.url}/settings/tokens")
        assert "hf_wrong" not in f"{failed} {failed.hint} {staging.lines}"
        assert len(hub.requests) == 1


def test_a_gate_that_closes_midway_is_final_and_the_part_stays(hub: FakeHub, staging: Staging) -> None:
    cut_once(hub)
    gate = hub.faults.add(Fault.GATED, at="resolve", skip=1)

    failed = failure_of(staging)
    hub.faults.remove(gate)
    staging.transfer().run()

    assert failed.code is JobErrorCode.HUB_ACCESS_DENIED
    assert ranges(hub) == [None, REST]
    assert hub.bytes_served() == SIZE
    assert staging.fetched == {FILE: WEIGHTS}


def test_a_private_or_missing_repository_is_final(hub: FakeHub, staging: Staging) -> None:
    hub.remove_repository(REPO)

    failed = failure_of(staging)

    assert (failed.code, failed.retryable) == (JobErrorCode.NOT_FOUND, False)
    assert len(hub.requests) == 1
