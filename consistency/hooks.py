"""Tell somebody of a divergence: a command that reads it from stdin, or a signed webhook; tried again, within bounds.

What is told holds names and counts, never keys or values.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import shlex
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from consistency.errors import ConsistencyError, UsageError
from consistency.report import RepairSummary, Report

MESSAGE_VERSION = 1
_ATTEMPTS = 5
_TIMEOUT_S = 20.0
_TRANSIENT = frozenset({408, 425, 429})


class HookFailed(ConsistencyError):
    """A hook was not told, and trying again would not help."""


class HookBusy(HookFailed):
    """A hook was not told, and may be later."""


class Hook(Protocol):
    """Somebody who wants to be told."""

    @property
    def name(self) -> str:
        """What the log calls it: never an address or a command line, they may hold secrets."""

    async def tell(self, message: bytes) -> None:
        """Deliver once; HookBusy where it may be tried again."""


def message_of(report: Report, at_s: float, states: Mapping[str, int] | None = None) -> bytes:
    """Return what hooks are told of a report, as JSON; `states` counts its rows as the ledger knows them."""
    differing = [t for t in report.tables if t.divergent_rows]
    data: dict[str, Any] = {
        "schema": MESSAGE_VERSION,
        "event": "divergence",
        "at": int(at_s),
        "run_id": report.run_id,
        "cluster": report.cluster,
        "verdict": report.verdict.value,
        "tables": [{"keyspace": t.keyspace, "table": t.table, "divergent_rows": t.divergent_rows} for t in differing],
        "findings_by_kind": dict(report.findings_by_kind),
        "findings": report.findings_path,
    }
    if states:
        data["states"] = dict(states)
    if report.repair is not None:
        data["repair"] = {**_counts(report.repair), "results": dict(report.repair.results)}
    return json.dumps(data, sort_keys=True).encode()


def _counts(repair: RepairSummary) -> dict[str, Any]:
    again = repair.checked_again.value if repair.checked_again else None
    return {
        "rows": repair.rows,
        "acted_on": repair.acted_on,
        "remaining": repair.remaining,
        "unknown": repair.unknown,
        "checked_again": again,
    }


async def deliver(hook: Hook, message: bytes, *, attempts: int = _ATTEMPTS, longest_wait_s: float = 30.0) -> int:
    """Tell a hook, again where it is busy; return how many attempts it took, or raise HookFailed."""
    policy = AsyncRetrying(
        retry=retry_if_exception_type(HookBusy),
        stop=stop_after_attempt(attempts),
        wait=wait_exponential(multiplier=1, max=longest_wait_s),
        reraise=True,
    )
    tried = 0
    async for attempt in policy:
        with attempt:
            tried += 1
            await hook.tell(message)
    return tried


@dataclass(frozen=True)
class CommandHook:
    """Runs a command, without a shell, with the message on its stdin."""

    words: tuple[str, ...]
    timeout_s: float = _TIMEOUT_S
    name: str = "command"

    @classmethod
    def parse(cls, text: str) -> CommandHook:
        """Read a command line."""
        try:
            words = tuple(shlex.split(text))
        except ValueError as error:
            msg = f"--hook cannot be read ({error}); give a command and its arguments, quoted as for a shell"
            raise UsageError(msg) from None
        if not words:
            raise UsageError("--hook names no command; give one, such as --hook /usr/local/bin/page-someone")
        return cls(words)

    async def tell(self, message: bytes) -> None:
        """Run it; it must end in time with exit code 0."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self.words,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError as error:
            msg = f"the hook's command cannot be run: {error.strerror}"
            raise HookFailed(msg) from None
        try:
            await asyncio.wait_for(process.communicate(message), self.timeout_s)
        except (asyncio.TimeoutError, TimeoutError):
            msg = f"the hook's command did not end within {self.timeout_s:.0f} s"
            raise HookBusy(msg) from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode:
            msg = f"the hook's command ended with exit code {process.returncode}"
            raise HookBusy(msg)


@dataclass(frozen=True)
class WebHook:
    """Posts the message to an address, signed with a secret that both sides know."""

    url: str = field(repr=False)
    secret: str = field(repr=False)
    timeout_s: float = _TIMEOUT_S
    name: str = "webhook"

    @classmethod
    def parse(cls, url: str, secret: str | None) -> WebHook:
        """Take an address and the secret; UsageError where one of them cannot be used."""
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise UsageError(
                "--webhook is no http or https address; give one, such as https://alerts.example/cassandra"
            )
        if not secret:
            raise UsageError("--webhook needs a secret to sign with: set CONSISTENCY_WEBHOOK_SECRET or ..._SECRET_FILE")
        return cls(url, secret)

    async def tell(self, message: bytes) -> None:
        """Post it; any answer of 2xx is taken."""
        await asyncio.to_thread(self._post, message)

    def _post(self, message: bytes) -> None:
        request = urllib.request.Request(self.url, message, self._headers(message), method="POST")  # noqa: S310 - parse
        try:
            with _OPENER.open(request, timeout=self.timeout_s) as answer:
                answer.read(1)
        except urllib.error.HTTPError as error:
            error.close()
            kind = HookBusy if error.code >= 500 or error.code in _TRANSIENT else HookFailed
            msg = f"the webhook answered {error.code}"
            raise kind(msg) from None
        except (OSError, ValueError) as error:
            msg = f"the webhook cannot be reached ({type(error).__name__})"
            raise HookBusy(msg) from None

    def _headers(self, message: bytes) -> Mapping[str, str]:
        at = str(int(time.time()))
        return {
            "Content-Type": "application/json",
            "User-Agent": "cassandra-consistency",
            "X-Consistency-Timestamp": at,
            "X-Consistency-Signature": signature(self.secret, at, message),
        }


def signature(secret: str, timestamp: str, message: bytes) -> str:
    """Return what a receiver computes too: HMAC-SHA256 over `timestamp.message`; it refuses timestamps of long ago."""
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + message, hashlib.sha256).hexdigest()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET without its body: an answer of 3xx is a failure."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow nothing."""
        return


_OPENER = urllib.request.build_opener(_NoRedirect)
