"""Who may see the live page: this machine without a token, everybody else with one."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus

from consistency.errors import UsageError

DEFAULT_LISTEN = "127.0.0.1:9477"
SHORTEST_TOKEN = 16
_CHALLENGE = 'Basic realm="consistency watch: any user, the token as password", charset="UTF-8"'
_REFUSED = (
    "the live page needs a token on an address that other machines reach: start the watch with --listen-token-file "
    "FILE, or listen on 127.0.0.1; /metrics and /healthz need none\n"
)
_FROM_ELSEWHERE = (
    "without a token the live page is served to this machine only: open it as http://127.0.0.1:PORT/, or start the "
    "watch with --listen-token-file FILE\n"
)
_UNKNOWN = "the live page needs the token of --listen-token-file: as password, with any user, or as bearer\n"


class PageMode(str, Enum):
    """How the page is guarded, as the event `watch.started` says."""

    OPEN = "this machine only"
    GUARDED = "with the token"
    REFUSED = "refused: no token"


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to somebody who may not see the page."""

    status: HTTPStatus
    reason: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PageAccess:
    """The rule for one address: `address` is the IP that the watch listens on."""

    address: str
    token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if self.token and len(self.token) < SHORTEST_TOKEN:
            msg = (
                f"the token of --listen-token-file has fewer than {SHORTEST_TOKEN} characters and could be guessed; "
                "make one: openssl rand -hex 32"
            )
            raise UsageError(msg)

    @property
    def mode(self) -> PageMode:
        """How the page is guarded."""
        if self.token:
            return PageMode.GUARDED
        return PageMode.OPEN if _is_loopback(self.address) else PageMode.REFUSED

    def refusal(self, headers: Mapping[str, str]) -> Refusal | None:
        """Return why a request may not see the page, None if it may; `headers` have lower-case names."""
        if self.mode is PageMode.GUARDED:
            if hmac.compare_digest(_token_in(headers.get("authorization", "")).encode(), self.token.encode()):
                return None
            return Refusal(HTTPStatus.UNAUTHORIZED, _UNKNOWN, {"www-authenticate": _CHALLENGE})
        if self.mode is PageMode.REFUSED:
            return Refusal(HTTPStatus.FORBIDDEN, _REFUSED)
        # Another name means that a proxy passes the page on, or that a web site had its name point to this machine.
        if _names_this_machine(headers.get("host", "")):
            return None
        return Refusal(HTTPStatus.FORBIDDEN, _FROM_ELSEWHERE)


def _token_in(authorization: str) -> str:
    """Return the bearer token, or the password of a browser's login; empty if there is none."""
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return given.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(given, validate=True).decode("utf-8").partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _names_this_machine(host: str) -> bool:
    name = host if host.endswith("]") or ":" not in host else host.rpartition(":")[0]
    return name.lower() == "localhost" or _is_loopback(name.strip("[]"))


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
