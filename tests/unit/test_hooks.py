"""Hooks: told what was found and never which rows, signed, tried again within bounds."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from consistency.errors import UsageError
from consistency.watching.hooks import CommandHook, HookBusy, HookFailed, WebHook, deliver, message_of, signature
from tests.unit.test_terminal import finding, report, table_report

MESSAGE = message_of(report(table_report(divergent_rows=2), table_report("items"), top=(finding(),)), 1_800_000_000.0)


class Receiver:
    """A web server that answers with the codes it is given, in turn, the last one for ever."""

    def __init__(self) -> None:
        self.codes = [200]
        self.heard: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.heard.append((dict(self.headers), body))
                code = receiver.codes.pop(0) if len(receiver.codes) > 1 else receiver.codes[0]
                self.send_response(code)
                if code == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook?token=secret"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Return a web server that is gone after the test."""
    server = Receiver()
    yield server
    server.close()


def tell(hook: Any, attempts: int = 3) -> int:
    """Deliver the message without long waits."""
    return asyncio.run(deliver(hook, MESSAGE, attempts=attempts, longest_wait_s=0.01))


def test_the_message_names_tables_and_never_keys() -> None:
    """Only tables that differ, with figures and the way to the rows."""
    data = json.loads(MESSAGE)
    assert data["tables"] == [{"keyspace": "shop", "table": "orders", "divergent_rows": 2}]
    assert (data["schema"], data["event"], data["verdict"]) == (1, "divergence", "divergent")
    assert data["findings_by_kind"] == {"missing": 2}
    assert "id" not in MESSAGE.decode().replace("run_id", "").replace("cluster_id", "").replace("divergen", "")


def test_a_webhook_is_signed_over_time_and_body(receiver: Receiver) -> None:
    """The receiver computes the same from the shared secret; another secret or body gives another signature."""
    assert tell(WebHook.parse(receiver.url, "s3cret")) == 1
    ((headers, body),) = receiver.heard
    assert body == MESSAGE
    stamp = headers["X-Consistency-Timestamp"]
    assert headers["X-Consistency-Signature"] == signature("s3cret", stamp, body)
    others = {signature("other", stamp, body), signature("s3cret", "0", body), signature("s3cret", stamp, body + b" ")}
    assert headers["X-Consistency-Signature"] not in others


def test_a_busy_webhook_is_tried_again(receiver: Receiver) -> None:
    """5xx, 429: until it takes it."""
    receiver.codes = [503, 429, 200]
    assert tell(WebHook.parse(receiver.url, "s")) == 3


def test_a_webhook_that_stays_busy_is_given_up(receiver: Receiver) -> None:
    """After so many attempts and no more."""
    receiver.codes = [500]
    with pytest.raises(HookBusy, match="answered 500"):
        tell(WebHook.parse(receiver.url, "s"))
    assert len(receiver.heard) == 3


@pytest.mark.parametrize("code", [302, 401, 404])
def test_a_refusal_is_not_tried_again_and_no_redirect_is_followed(receiver: Receiver, code: int) -> None:
    """The message names the code, not the address: it may hold a secret."""
    receiver.codes = [code]
    with pytest.raises(HookFailed, match=f"answered {code}") as caught:
        tell(WebHook.parse(receiver.url, "s"))
    assert len(receiver.heard) == 1
    assert "secret" not in str(caught.value)


def test_nobody_listening_is_tried_again(receiver: Receiver) -> None:
    """And told as a failure in the end."""
    url = receiver.url
    receiver.server.server_close()
    with pytest.raises(HookBusy, match="cannot be reached"):
        tell(WebHook.parse(url, "s"), attempts=2)


@pytest.mark.parametrize("url", ["", "ftp://x/y", "file:///etc/passwd", "http://", "alerts.example"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """Only http and https."""
    with pytest.raises(UsageError, match="not an http or https address"):
        WebHook.parse(url, "s")


def test_a_webhook_without_a_secret_is_refused() -> None:
    """An unsigned one could be sent by anyone."""
    with pytest.raises(UsageError, match="CONSISTENCY_WEBHOOK_SECRET"):
        WebHook.parse("https://alerts.example", None)


def test_the_address_and_the_secret_are_not_in_the_hooks_repr() -> None:
    """A traceback shows neither."""
    assert "secret" not in repr(WebHook.parse("https://alerts.example/?t=secret", "secret word"))


def test_a_command_gets_the_message_on_stdin(tmp_path: Path) -> None:
    """Without a shell: its arguments are what they are."""
    path = tmp_path / "told; rm x"
    code = "import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())"
    assert tell(CommandHook((sys.executable, "-c", code, str(path)))) == 1
    assert path.read_bytes() == MESSAGE


def test_a_command_that_fails_is_tried_again_and_given_up(tmp_path: Path) -> None:
    """With its exit code."""
    path = tmp_path / "tries"
    code = "import sys; open(sys.argv[1], 'a').write('x'); sys.exit(3)"
    with pytest.raises(HookBusy, match="exit code 3"):
        tell(CommandHook((sys.executable, "-c", code, str(path))))
    assert path.read_text() == "xxx"


def test_a_command_that_hangs_is_ended() -> None:
    """Within its time."""
    hook = CommandHook((sys.executable, "-c", "import time; time.sleep(60)"), timeout_s=0.3)
    with pytest.raises(HookBusy, match="did not end"):
        tell(hook, attempts=1)


def test_a_command_that_does_not_exist_is_not_tried_again() -> None:
    """It will not exist the next time either."""
    with pytest.raises(HookFailed, match="No such file"):
        tell(CommandHook(("/no/such/command",)))


@pytest.mark.parametrize("text", ["", "  ", "'open"])
def test_a_command_line_that_is_none_is_refused(text: str) -> None:
    """Before the watch starts."""
    with pytest.raises(UsageError, match="--hook"):
        CommandHook.parse(text)


@pytest.mark.parametrize("text", ["/no/such/command", "no-such-command --key canary", "KEY=canary page", "{tmp}"])
def test_a_command_that_cannot_be_run_is_refused_at_once(tmp_path: Path, text: str) -> None:
    """Not at the first divergence, some night; what may be a secret is not repeated."""
    with pytest.raises(UsageError, match=r"--hook: .* is not a command that can be run") as caught:
        CommandHook.parse(text.format(tmp=tmp_path))
    assert "canary" not in str(caught.value)


def environment_of(hook: CommandHook, path: Path) -> dict[str, str]:
    """Tell a hook that runs the system's own `env -0`, as a real process, and return all that it was given."""
    tell(replace(hook, words=("/bin/sh", "-c", f"env -0 > {path}")))
    return dict(entry.split("=", 1) for entry in path.read_text().split("\0") if entry)


def test_a_command_gets_no_secret_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of our environment it sees where programs and files are, words and times: nobody's password, token or key."""
    secrets = (
        "CONSISTENCY_PASSWORD", "CONSISTENCY_USERNAME", "CONSISTENCY_PASSWORD_FILE", "CONSISTENCY_WEBHOOK",
        "CONSISTENCY_WEBHOOK_SECRET", "CONSISTENCY_HOSTS", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "http_proxy",
        "MY_PATH", "HOMEPAGE_TOKEN", "PAGER_KEY", "path",
    )  # fmt: skip
    for name in secrets:
        monkeypatch.setenv(name, f"canary of {name}")
    ours = ("LC_TIME", "TZ", "TMPDIR", "LANG")
    for name in ours:
        monkeypatch.setenv(name, f"our {name}")
    given = environment_of(CommandHook.parse("true"), tmp_path / "env")
    assert "canary" not in str(given)
    assert [given[name] for name in ours] == [f"our {name}" for name in ours]
    assert (given["PATH"], given["HOME"]) == (os.environ["PATH"], os.environ["HOME"])


def test_a_variable_that_is_named_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That one and no other."""
    monkeypatch.setenv("PAGER_KEY", "theirs")
    monkeypatch.setenv("PAGER_KEY_2", "not theirs")
    given = environment_of(CommandHook.parse("true", ("PAGER_KEY",)), tmp_path / "env")
    assert given["PAGER_KEY"] == "theirs"
    assert "PAGER_KEY_2" not in given


@pytest.mark.parametrize(
    ("name", "says"), [("NO_SUCH", "NO_SUCH: there is no such variable"), ("KEY=canary", "only the name of a variable")]
)
def test_a_variable_that_cannot_be_passed_on_is_refused(name: str, says: str) -> None:
    """Before the watch starts; what may be a secret on the command line is not repeated."""
    with pytest.raises(UsageError, match=says) as caught:
        CommandHook.parse("true", (name,))
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://u:canary@alerts.example/", "https://canary@alerts.example/"])
def test_a_login_in_the_address_is_refused(url: str) -> None:
    """It would not be sent, and an error of the library quotes it."""
    with pytest.raises(UsageError, match="no user and password") as caught:
        WebHook.parse(url, "s")
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://alerts.example:canary/", "https://[canary/x", "https://alerts.example:99999/"]
)
def test_an_address_of_no_port_is_refused(url: str) -> None:
    """In our words: the library's quote a part of it."""
    with pytest.raises(UsageError, match="not an http or https address") as caught:
        WebHook.parse(url, "s")
    assert "canary" not in str(caught.value)


def test_an_address_that_the_library_takes_for_none_is_a_failure_that_quotes_nothing() -> None:
    """A space or a control character in it: http.client's own error holds the whole address."""
    with pytest.raises(HookBusy) as caught:
        tell(WebHook.parse("http://127.0.0.1:9/?token=canary word", "s"), attempts=1)
    assert "canary" not in str(caught.value)


def test_the_command_line_is_not_in_the_hooks_repr() -> None:
    """It may hold a secret too."""
    assert "canary" not in repr(CommandHook.parse("true --key canary"))
