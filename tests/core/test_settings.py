"""Settings: what stands in the environment is taken, and what is wrong is named without its value."""

import os
from pathlib import Path

import pytest

from core.errors import SettingsError
from core.settings import PREFIX, Settings, load

SECRET = "hunter2-hunter2-hunter2-hunter2"


@pytest.fixture(autouse=True)
def no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


def refusal(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    for name, value in environment.items():
        monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(SettingsError) as refused:
        load()
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__
    return str(refused.value)


def test_nothing_has_to_be_set() -> None:
    settings = load()

    assert (settings.host, settings.port, settings.metrics_port) == ("127.0.0.1", 8080, 9090)
    assert settings.hub_endpoint == "https://huggingface.co"
    assert settings.hub_secret() is None
    assert settings.database == f"sqlite+aiosqlite:///{Path('.model-manager').resolve() / 'model-manager.db'}"
    assert settings.weights == Path(".model-manager/weights").absolute()


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(PREFIX + name.upper(), "")

    assert load() == Settings.model_construct(**{name: field.default for name, field in Settings.model_fields.items()})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PORT", "eighty", "input should be a valid integer, unable to parse string as an integer"),
        ("PORT", "-1", "input should be greater than or equal to 0"),
        ("PORT", "65536", "input should be less than or equal to 65535"),
        ("PORT", "8080.5", "input should be a valid integer, unable to parse string as an integer"),
        ("METRICS_PORT", "NaN", "input should be a valid integer, unable to parse string as an integer"),
        ("DATABASE_URL", "mysql://x", "it must begin with sqlite+aiosqlite:/// or postgresql+asyncpg://"),
        ("DATABASE_URL", "postgresql://x", "it must begin with sqlite+aiosqlite:/// or postgresql+asyncpg://"),
        ("DATABASE_URL", "[", "it must begin with sqlite+aiosqlite:/// or postgresql+asyncpg://"),
        ("REDIS_URL", "http://x", "it must begin with redis://, rediss:// or unix://"),
        ("REDIS_URL", "localhost:6379", "it must begin with redis://, rediss:// or unix://"),
        *[
            ("HUB_ENDPOINT", value, "it must be an address such as https://huggingface.co")
            for value in (
                *[
                    "huggingface.co",
                    "ftp://x",
                    "https://",
                    "https:///x",
                    "http://[::1",
                    "https://x:99999",
                    "https://x:0",
                ],
                *["https://x?y=1", "https://x#y", "https://x y", "https://x\\@y", "https://user@x", "https://:pw@x"],
                *["https://x\n", "javascript:alert(1)", "https://日本"],
            )
        ],
        *[
            ("HUB_TOKEN", value, "it must be letters, digits and signs without spaces or line breaks")
            for value in ("hf_x\n", "hf x", "hf_é", "\t", "hf_x\x7f")
        ],
        ("ADMIN_TOKEN", "short", "it must have at least 24 characters"),
        ("ADMIN_TOKEN", "x" * 30 + "\n", "it must be letters, digits and signs without spaces or line breaks"),
        *[
            (name, value, "it must be a Kubernetes name: lower-case letters, digits, '-' and '.', each part beginning")
            for name in ("NAMESPACE", "PVC_NAME")
            for value in ("AI", "-x", "x-", "a..b", ".", "a_b", "x" * 254, "ai\n", "é", "a/b", "²")
        ],
        ("LOG_LEVEL", "loud", "input should be 'debug', 'info', 'warning' or 'error'"),
        ("LOG_FORMAT", "xml", "input should be 'text' or 'json'"),
    ],
    ids=lambda value: ascii(value)[:24],
)
def test_a_bad_value_names_its_variable_and_what_would_be_right(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    message = refusal(monkeypatch, **{name: value})

    assert message.startswith(f"{PREFIX}{name} is not usable: {said}")
    assert "\n" not in message


def test_every_bad_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(monkeypatch, PORT="x", LOG_LEVEL="loud", NAMESPACE="A")

    assert [line.split()[0] for line in message.splitlines()] == [
        "MODEL_MANAGER_PORT",
        "MODEL_MANAGER_NAMESPACE",
        "MODEL_MANAGER_LOG_LEVEL",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", f"mysql://user:{SECRET}@db/x"),
        ("DATABASE_URL", f"mysql://user:{SECRET}\u2100@db/x"),
        ("DATABASE_URL", f"mysql://user:{SECRET}@[::1/x"),
        ("REDIS_URL", f"http://:{SECRET}@cache"),
        ("REDIS_URL", f"http://:{SECRET}\u2100@cache"),
        ("HUB_ENDPOINT", f"https://user:{SECRET}@hub"),
        ("HUB_ENDPOINT", f"https://user:{SECRET}\u2100@hub"),
        ("HUB_TOKEN", f"{SECRET}\n"),
        ("ADMIN_TOKEN", f"{SECRET} {SECRET}"),
        ("ADMIN_TOKEN", SECRET[:20]),
        ("PORT", SECRET),
        ("METRICS_PORT", SECRET),
        ("NAMESPACE", f"{SECRET}!"),
        ("PVC_NAME", f"{SECRET}!"),
        ("LOG_LEVEL", SECRET),
        ("LOG_FORMAT", SECRET),
    ],
)
def test_no_refusal_shows_what_was_set(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    message = refusal(monkeypatch, **{name: value})

    assert name in message
    assert SECRET[:12] not in message


def test_bytes_that_are_no_text_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(monkeypatch, HUB_TOKEN=os.fsdecode(b"hf_\xff"), DATABASE_URL=os.fsdecode(b"sqlite\xfe"))

    assert {line.split()[0] for line in message.splitlines()} == {
        "MODEL_MANAGER_HUB_TOKEN",
        "MODEL_MANAGER_DATABASE_URL",
    }
    message.encode()


def test_settings_show_no_secret_when_they_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}DATABASE_URL", f"postgresql+asyncpg://user:{SECRET}@db/x")
    monkeypatch.setenv(f"{PREFIX}REDIS_URL", f"rediss://:{SECRET}@cache:6379/0")
    monkeypatch.setenv(f"{PREFIX}HUB_TOKEN", SECRET)
    monkeypatch.setenv(f"{PREFIX}ADMIN_TOKEN", SECRET)

    settings = load()

    assert SECRET not in f"{settings!r} {settings}"
    assert settings.hub_secret() == SECRET
    assert settings.redis == f"rediss://:{SECRET}@cache:6379/0"
    assert settings.database == f"postgresql+asyncpg://user:{SECRET}@db/x"


@pytest.mark.parametrize(
    ("value", "taken"),
    [
        ("https://huggingface.co/", "https://huggingface.co"),
        ("http://127.0.0.1:8081", "http://127.0.0.1:8081"),
        ("http://[::1]:8081", "http://[::1]:8081"),
        ("https://mirror.example/hf/", "https://mirror.example/hf"),
    ],
)
def test_an_endpoint_is_taken_without_its_last_slash(monkeypatch: pytest.MonkeyPatch, value: str, taken: str) -> None:
    monkeypatch.setenv(f"{PREFIX}HUB_ENDPOINT", value)

    assert load().hub_endpoint == taken


def test_levels_are_taken_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}LOG_LEVEL", "WARNING")
    monkeypatch.setenv(f"{PREFIX}LOG_FORMAT", "Json")

    assert (load().log_level, load().log_format) == ("warning", "json")


def test_redis_is_needed_by_whoever_asks_for_it() -> None:
    with pytest.raises(SettingsError, match="MODEL_MANAGER_REDIS_URL is not set"):
        _ = load().redis


def test_settings_are_not_changed_once_they_are_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().port = 1  # type: ignore[misc]
