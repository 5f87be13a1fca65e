"""Notifies of a divergence by a command that reads stdin, or by a signed webhook, with a bounded number of retries.

The message holds names and counts, never keys or values.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import http.client
import json
import os
import re
import shlex
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from consistency.cluster.waits import within
from consistency.errors import ConsistencyError, UsageError
from consistency.results.report import RepairSummary, Report

MESSAGE_VERSION = 1
_ATTEMPTS = 5
_TIMEOUT_S = 20.0
_TRANSIENT = frozenset({408, 425, 429})
_PASSED_ON = re.compile(r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR")
"""The variables of our environment that a command gets, for programs, files, language, time zone and temporary files.
It gets no others, because they hold our password, the webhook's secret, and perhaps secrets of others."""
_A_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


class HookFailed(ConsistencyError):
    """A hook was not notified, and a retry would not help."""


class HookBusy(HookFailed):
    """A hook was not notified, but a retry may help."""


class Hook(Protocol):
    """A receiver of notifications."""

    @property
    def name(self) -> str:
        """Its name in the log: never an address or a command line, because they may hold secrets."""

    async def tell(self, message: bytes) -> None:
        """Deliver once; HookBusy if a retry may help."""


def message_of(report: Report, at_s: float, states: Mapping[str, int] | None = None) -> bytes:
    """Return the hooks' message about a report, as JSON; `states` counts its rows by their state in the ledger."""
    differing = [t for t in report.tables if t.divergent_rows]
    data: dict[str, Any] = {
        "schema": MESSAGE_VERSION,
        "event": "divergence",
        "at": int(at_s),
        "run_id": report.run_id,
        "cluster": report.cluster,
        "cluster_id": report.cluster_id,
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
    """Notify a hook, with retries while it is busy; return the number of attempts, or raise HookFailed."""
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
    """Runs a command without a shell, with the message on its stdin and a minimal environment."""

    words: tuple[str, ...] = field(repr=False)
    timeout_s: float = _TIMEOUT_S
    name: str = "command"
    passed_on: tuple[str, ...] = ()
    """Names of variables that it gets besides the few that every command needs."""

    @classmethod
    def parse(cls, text: str, passed_on: Sequence[str] = ()) -> CommandHook:
        """Read a command line and the names of variables to pass on; UsageError if one of them cannot be used."""
        try:
            words = tuple(shlex.split(text))
        except ValueError as error:
            msg = f"--hook cannot be read ({error}); give a command and its arguments, quoted as for a shell"
            raise UsageError(msg) from None
        if not words:
            raise UsageError("--hook names no command; give one, such as --hook /usr/local/bin/page-someone")
        if shutil.which(words[0]) is None:  # else the first divergence would be the first to tell of it
            shown = "its first word" if "=" in words[0] else words[0]  # it may be NAME=SECRET
            msg = f"--hook: {shown} is not a command that can be run; name a file that may be executed, by its path"
            raise UsageError(msg)
        for variable in passed_on:
            if not _A_NAME.fullmatch(variable):  # it may be NAME=SECRET, so it is not repeated
                raise UsageError("--hook-env takes only the name of a variable; its value comes from our environment")
            if variable not in os.environ:
                msg = f"--hook-env {variable}: there is no such variable in our environment; set it, or leave it out"
                raise UsageError(msg)
        return cls(words, passed_on=tuple(passed_on))

    async def tell(self, message: bytes) -> None:
        """Run it; it must end in time with exit code 0."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self.words,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                env=hook_environment(os.environ, self.passed_on),
            )
        except OSError as error:
            msg = f"the hook's command cannot be run: {error.strerror}"
            raise HookFailed(msg) from None
        try:
            async with within(self.timeout_s):
                await process.communicate(message)
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


def hook_environment(environ: Mapping[str, str], passed_on: Sequence[str] = ()) -> dict[str, str]:
    """Return the part of an environment that a command gets: the few variables that all need, and the named ones."""
    return {n: value for n, value in environ.items() if _PASSED_ON.fullmatch(n) or n in passed_on}


@dataclass(frozen=True)
class WebHook:
    """Posts the message to an address, signed with a shared secret."""

    url: str = field(repr=False)
    secret: str = field(repr=False)
    timeout_s: float = _TIMEOUT_S
    name: str = "webhook"

    @classmethod
    def parse(cls, url: str, secret: str | None) -> WebHook:
        """Take an address and the secret; UsageError if one of them cannot be used."""
        if not _is_address(url):
            raise UsageError(
                "--webhook is not an http or https address; give one, such as https://alerts.example/cassandra"
            )
        if "@" in urllib.parse.urlsplit(url).netloc:
            raise UsageError("--webhook takes no user and password in the address: they are not sent; leave them out")
        if not secret:
            raise UsageError("--webhook needs a secret to sign with: set CONSISTENCY_WEBHOOK_SECRET or ..._SECRET_FILE")
        return cls(url, secret)

    async def tell(self, message: bytes) -> None:
        """Post it; every 2xx answer is a success."""
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
        except (OSError, ValueError, http.client.HTTPException) as error:
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


def _is_address(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an invalid port, or an unmatched bracket
        return False


def signature(secret: str, timestamp: str, message: bytes) -> str:
    """Return the HMAC-SHA256 of `timestamp.message`; a receiver computes it too, and refuses old timestamps."""
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + message, hashlib.sha256).hexdigest()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Makes 3xx a failure, because a redirected POST would become a GET without its body."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow nothing."""
        return


_OPENER = urllib.request.build_opener(_NoRedirect)
