"""Who sends wrong tokens, and for how long such an address has to wait. In this process's memory, bounded.

An address is the peer's, or what proxies that are trusted say of it. A token that is right does not help an address
that has to wait: else its guesses would go on.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from starlette.types import Scope

from core.errors import RateLimitedError
from core.settings import IPNetwork

MAX_WRONG_TOKENS = 10
WINDOW_SECONDS = 60.0
MAX_ADDRESSES = 10_000
IPV6_PREFIX = 64
CLIENT: ContextVar[str | None] = ContextVar("client", default=None)
"""The address that the present request or socket comes from; None where the server does not know."""

IPAddress = IPv4Address | IPv6Address


@dataclass(slots=True)
class _Count:
    """How many wrong tokens came since an instant of the monotonic clock."""

    began_at: float
    wrong: int = 0


class WrongTokens:
    """Counts wrong tokens by address. clock: monotonic, in seconds."""

    def __init__(self, *, max_addresses: int = MAX_ADDRESSES, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_addresses = max_addresses
        self._clock = clock
        self._counts: OrderedDict[str, _Count] = OrderedDict()

    def __len__(self) -> int:
        """How many addresses are remembered."""
        return len(self._counts)

    def check(self, address: str | None) -> None:
        """Refuse an address that has sent too many. Raises: RateLimitedError."""
        count = self._current(address)
        if count is not None and count.wrong >= MAX_WRONG_TOKENS:
            left = count.began_at + WINDOW_SECONDS - self._clock()
            raise RateLimitedError(
                f"Too many wrong tokens came from your address: {MAX_WRONG_TOKENS} a minute are answered",
                retry_after_seconds=max(1, math.ceil(left)),
            )

    def note(self, address: str | None) -> None:
        """Count a wrong token; the address that was heard of longest ago is forgotten when there are too many."""
        if address is None:
            return
        count = self._current(address)
        if count is None:
            count = self._counts[address] = _Count(self._clock())
        count.wrong += 1
        self._counts.move_to_end(address)
        while len(self._counts) > self._max_addresses:
            self._counts.popitem(last=False)

    def _current(self, address: str | None) -> _Count | None:
        """Find an address's count, unless its minute is over."""
        count = self._counts.get(address) if address is not None else None
        if address is not None and count is not None and self._clock() - count.began_at >= WINDOW_SECONDS:
            del self._counts[address]
            return None
        return count


def client_of(scope: Scope, *, trusted: Iterable[IPNetwork]) -> str | None:
    """Say which address a request or socket comes from: of IPv6 the network of 64 bits, which is one customer's.

    X-Forwarded-For is read from its end, one step further for each trusted proxy; what nobody trusted wrote is not
    believed.
    """
    networks = tuple(trusted)
    peer = scope.get("client")
    found = _parsed(peer[0]) if peer else None
    if found is None:
        return None
    told = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    steps = b",".join(told).decode("latin-1").split(",") if told else []
    while steps and _is_in(found, networks):
        step = _parsed(steps.pop().strip())
        if step is None:
            break
        found = step
    if isinstance(found, IPv6Address):
        return str(IPv6Network((found, IPV6_PREFIX), strict=False))
    return str(found)


def _is_in(address: IPAddress, networks: Iterable[IPNetwork]) -> bool:
    """Tell whether an address is in one of the networks."""
    return any(address in network for network in networks)


def _parsed(text: str) -> IPAddress | None:
    """Read an address; an IPv4 one in IPv6's clothes is IPv4. None for what is none, such as a host's name."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
