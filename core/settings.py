"""The settings of every process, read once at the entry points and passed down.

The environment (prefix MODEL_MANAGER_) is the only source; a bad value stops the start with its name and what
would be right, and no secret is ever part of such a message.
"""

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.errors import SettingsError

PREFIX = "MODEL_MANAGER_"
MIN_ADMIN_TOKEN_LENGTH = 24
MAX_CONCURRENT_INSTALLS = 32
MAX_RANGES_PER_INSTALL = 64
MIN_BYTES_PER_SECOND = 65_536
MAX_KUBERNETES_NAME_LENGTH = 253
ENDPOINT = re.compile(r"https?://[A-Za-z0-9._\[\]:-]+(/[A-Za-z0-9._~/-]*)?")
TOKEN = re.compile(r"[!-~]+")
KUBERNETES_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
IPNetwork = IPv4Network | IPv6Network
Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseSettings):
    """Everything that can be set from outside. `docs/configuration.md` is the table of these lines."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    host: str = Field("127.0.0.1", description="Address that the API listens on.")
    port: Port = Field(8080, description="Port that the API listens on; 0 lets the system choose.")
    state_dir: Path = Field(
        Path(".model-manager"), description="Where `serve` keeps its database, its Valkey socket and its lock."
    )
    database_url: str | None = Field(
        None,
        repr=False,
        description="`sqlite+aiosqlite:///…` or `postgresql+asyncpg://…`; left out: SQLite under the state directory.",
    )
    redis_url: str | None = Field(
        None,
        repr=False,
        description="`redis://…`, `rediss://…` or `unix://…`; left out: `serve` runs a Valkey of its own.",
    )
    weights_dir: Path | None = Field(
        None, description="The weights volume; left out: `weights` under the state directory. Only workers open it."
    )
    catalog_dir: Path | None = Field(None, description="Directory of catalog entries.")
    metrics_port: Port = Field(
        9090,
        description="Port of `/metrics` and `/healthz` of a process; `serve` takes it and the next two; 0: off.",
    )
    hub_endpoint: str = Field("https://huggingface.co", description="The Hugging Face Hub or a mirror of it.")
    hub_token: SecretStr | None = Field(None, description="Token for gated and private repositories.")
    admin_token: SecretStr | None = Field(
        None, description=f"A token with scope ADMIN, at least {MIN_ADMIN_TOKEN_LENGTH} characters."
    )
    trusted_proxies: str | None = Field(
        None,
        description="Networks of proxies whose X-Forwarded-For is believed, separated by commas, e.g. `10.0.0.0/8`.",
    )
    kubeconfig: Path | None = Field(None, description="Kubeconfig file; left out: no cluster.")
    namespace: str = Field("ai", description="Namespace of the InferenceServices.")
    pvc_name: str = Field("venus-model-storage", description="Claim that serving pods mount the weights from.")
    lease_seconds: float = Field(
        20.0,
        ge=1.0,
        le=600.0,
        description="How long a job belongs to a worker that is silent; leases are renewed four times as often.",
    )
    concurrent_installs: int = Field(
        3, ge=1, le=MAX_CONCURRENT_INSTALLS, description="How many installs run at once, until `updateSettings` says."
    )
    ranges_per_install: int = Field(
        8,
        ge=1,
        le=MAX_RANGES_PER_INSTALL,
        description="How many connections an install may use at once, until `updateSettings` says.",
    )
    download_bytes_per_second: int | None = Field(
        None,
        ge=MIN_BYTES_PER_SECOND,
        description="What the installs of a worker may fetch in a second, until `updateSettings` says; left out: all.",
    )
    lock_settings: bool = Field(False, description="`true` refuses `updateSettings`.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="How much is logged.")
    log_format: Literal["text", "json"] = Field("text", description="`text` for people, `json` for machines.")

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        """Take INFO for info."""
        return value.lower() if isinstance(value, str) else value

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str | None) -> str | None:
        """Take the two drivers that every migration and test runs on."""
        if value is not None and _scheme(value) not in {"sqlite+aiosqlite", "postgresql+asyncpg"}:
            raise ValueError("it must begin with sqlite+aiosqlite:/// or postgresql+asyncpg://")
        return value

    @field_validator("redis_url")
    @classmethod
    def _known_redis(cls, value: str | None) -> str | None:
        """Take what redis-py takes."""
        if value is not None and _scheme(value) not in {"redis", "rediss", "unix"}:
            raise ValueError("it must begin with redis://, rediss:// or unix://")
        return value

    @field_validator("hub_endpoint")
    @classmethod
    def _plain_endpoint(cls, value: str) -> str:
        """Take an HTTP address and nothing beside it: no credentials, no query."""
        if not ENDPOINT.fullmatch(value) or not _has_good_port(value):
            raise ValueError("it must be an address such as https://huggingface.co")
        return value.rstrip("/")

    @field_validator("hub_token", "admin_token")
    @classmethod
    def _sendable_token(cls, value: SecretStr | None) -> SecretStr | None:
        """Refuse what cannot stand in a header, such as the line break at the end of a file."""
        if value is not None and not TOKEN.fullmatch(value.get_secret_value()):
            raise ValueError("it must be letters, digits and signs without spaces or line breaks")
        return value

    @field_validator("admin_token")
    @classmethod
    def _long_admin_token(cls, value: SecretStr | None) -> SecretStr | None:
        """Refuse what could be guessed."""
        if value is not None and len(value.get_secret_value()) < MIN_ADMIN_TOKEN_LENGTH:
            raise ValueError(f"it must have at least {MIN_ADMIN_TOKEN_LENGTH} characters")
        return value

    @field_validator("namespace", "pvc_name")
    @classmethod
    def _kubernetes_name(cls, value: str) -> str:
        """Take what Kubernetes takes as a name."""
        if not KUBERNETES_NAME.fullmatch(value) or len(value) > MAX_KUBERNETES_NAME_LENGTH:
            raise ValueError(
                "it must be a Kubernetes name: lower-case letters, digits, '-' and '.',"
                " each part beginning and ending with a letter or digit"
            )
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _known_networks(cls, value: str | None) -> str | None:
        """Take addresses and networks; one that is only nearly right would be believed or not by chance."""
        try:
            _networks(value)
        except ValueError:
            raise ValueError(
                "it must be networks separated by commas, e.g. 10.0.0.0/8,192.168.1.7,fd00::/8, without bits behind"
                " the prefix"
            ) from None
        return value

    @property
    def proxy_networks(self) -> tuple[IPNetwork, ...]:
        """The networks whose X-Forwarded-For is believed."""
        return _networks(self.trusted_proxies)

    @property
    def database(self) -> str:
        """The database's URL, embedded when none is set."""
        return self.database_url or f"sqlite+aiosqlite:///{self.state_dir.resolve() / 'model-manager.db'}"

    @property
    def weights(self) -> Path:
        """The weights volume's directory."""
        return (self.weights_dir or self.state_dir / "weights").absolute()

    @property
    def redis(self) -> str:
        """The Redis URL.

        Raises: SettingsError when there is none: only `serve` brings its own.
        """
        if self.redis_url is None:
            raise SettingsError(
                f"{PREFIX}REDIS_URL is not set: give redis://host:6379/0, or use `model-manager serve`,"
                " which runs a Valkey of its own"
            )
        return self.redis_url

    def hub_secret(self) -> str | None:
        """The Hub token in clear, for the Hub alone."""
        return self.hub_token.get_secret_value() if self.hub_token else None


def _networks(value: str | None) -> tuple[IPNetwork, ...]:
    """Read a list of networks. Raises: ValueError."""
    return tuple(ip_network(part.strip()) for part in value.split(",")) if value else ()


def _scheme(url: str) -> str:
    """Return a URL's scheme. Not by urlsplit: its errors repeat the address, and so the password in it."""
    return url.partition(":")[0].lower()


def _has_good_port(url: str) -> bool:
    """Tell whether an address has a host, and a port that there can be or none."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def load() -> Settings:
    """Read the environment.

    Raises: SettingsError naming every bad variable and what would be right.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(fault) for fault in error.errors())) from None


def _sentence(fault: object) -> str:
    """Say what is wrong with one variable, without its value: it may be a secret."""
    assert isinstance(fault, dict)
    name = PREFIX + "_".join(str(part) for part in fault["loc"]).upper()
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{name} is not usable: {message[:1].lower() + message[1:]}"
