"""Where connection settings come from, which source wins, and that no secret leaks."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from consistency.cli.connection import take_both, take_connection
from consistency.cluster.setting_values import require_no_misspelt
from consistency.cluster.settings import TARGET, GivenOptions, load_ledger_path, load_settings, parse_hosts
from consistency.cluster.tls import TlsSettings
from consistency.errors import SettingsError

TOML = '[connection]\nhosts = ["10.0.0.1", "10.0.0.2:9999"]\nusername = "toml"\npassword = "toml secret"\n'


@pytest.fixture(autouse=True)
def no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No configuration of the machine takes part."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def config(tmp_path: Path, text: str = TOML, mode: int = 0o600) -> str:
    """Write a TOML file."""
    path = tmp_path / "c.toml"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_options_win_over_environment_over_toml_over_cqlshrc(tmp_path: Path) -> None:
    """Each source fills only what the ones above it left open."""
    cqlshrc = tmp_path / "cqlshrc"
    cqlshrc.write_text("[authentication]\nusername = rc\npassword = rc%secret\n[connection]\nhostname = rc\nport = 1\n")
    given = GivenOptions(hosts="option", cqlshrc=str(cqlshrc), config=config(tmp_path))
    environ = {"CONSISTENCY_HOSTS": "env", "CONSISTENCY_PASSWORD": "env secret"}
    settings = load_settings(given, environ)
    assert settings.contact_points == (("option", 1),)
    assert (settings.username, settings.password) == ("toml", "env secret")
    bare = load_settings(GivenOptions(cqlshrc=str(cqlshrc)), {})
    assert (bare.username, bare.password, bare.contact_points) == ("rc", "rc%secret", (("rc", 1),))


def test_no_secret_is_in_the_text_of_settings(tmp_path: Path) -> None:
    """Not in repr, which ends up in logs and tracebacks."""
    settings = load_settings(GivenOptions(config=config(tmp_path)), {})
    assert settings.password == "toml secret"
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        (TOML, 0o644, "chmod 600"),
        ("not toml [", 0o600, "not TOML"),
        ("[connection]\nhots = 'a'\n", 0o600, "hots"),
        ("[connection]\nport = 'a'\n", 0o600, "port"),
        ("[connection]\nusername = 'u'\n", 0o600, "no password"),
        ("[connection]\npassword = 'p'\n", 0o600, "no user"),
        ("[connection]\ntls = {ca = 'x'}\n", 0o600, "ca"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_the_entry(tmp_path: Path, text: str, mode: int, words: str) -> None:
    """An operator's mistake says which file and which entry, and quotes no secret."""
    with pytest.raises(SettingsError, match=words) as caught:
        load_settings(GivenOptions(config=config(tmp_path, text, mode)), {})
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("a", (("a", 9042),)),
        ("a, b:1", (("a", 9042), ("b", 1))),
        ("[::1]:7,[fe80::2]", (("::1", 7), ("fe80::2", 9042))),
        ("::1", (("::1", 9042),)),
    ],
)
def test_hosts_may_carry_ports(text: str, points: tuple[tuple[str, int], ...]) -> None:
    """Names, IPv4 and IPv6, with a port of their own or without."""
    assert parse_hosts(text, 9042) == points


@pytest.mark.parametrize("text", ["", " , ", "a:b", "a:0", "a:70000", ":9042", "[::1", "[::1]x"])
def test_hosts_that_make_no_sense_are_refused(text: str) -> None:
    """One line that says what a host looks like."""
    with pytest.raises(SettingsError):
        parse_hosts(text, 9042)


def test_asking_for_tls_keeps_the_files_that_other_sources_name(tmp_path: Path) -> None:
    """--tls switches TLS on; the authority named in the environment or the TOML file still is the one to trust."""
    environ = {"CONSISTENCY_TLS_CA_FILE": "/ca.pem"}
    for given, env in (
        (GivenOptions(tls=True), environ),
        (GivenOptions(tls=True, config=config(tmp_path, "[connection]\ntls = {ca_file = '/ca.pem'}\n")), {}),
    ):
        settings = load_settings(given, env)
        assert settings.tls is not None
        assert settings.tls.ca_file == "/ca.pem"
    assert load_settings(GivenOptions(tls=False), environ).tls is None


def test_the_environment_adds_to_the_tls_files_of_the_toml_file(tmp_path: Path) -> None:
    """Each entry comes from the weightiest source that names it, not the whole table from one."""
    toml = config(tmp_path, "[connection]\ntls = {ca_file = '/toml.pem', cert_file = '/cert.pem'}\n")
    tls = load_settings(GivenOptions(config=toml), {"CONSISTENCY_TLS_CA_FILE": "/env.pem"}).tls
    assert tls is not None
    assert (tls.ca_file, tls.cert_file) == ("/env.pem", "/cert.pem")


@pytest.mark.parametrize("entry", ["verify = 'false'", "ca_file = true", "check_hostname = 1"])
def test_a_tls_entry_of_the_wrong_type_is_refused(tmp_path: Path, entry: str) -> None:
    """The text 'false' is not false: taking it for true, or true for a file, would hide a mistake."""
    with pytest.raises(SettingsError, match=entry.split(" ", maxsplit=1)[0]):
        load_settings(GivenOptions(config=config(tmp_path, f"[connection]\ntls = {{{entry}}}\n")), {})


def test_a_file_named_by_the_environment_is_named_in_the_message(tmp_path: Path) -> None:
    """The message names the file, not None."""
    path = config(tmp_path, "[connection]\nhots = 'a'\n")
    with pytest.raises(SettingsError, match=re.escape(path)):
        load_settings(GivenOptions(), {"CONSISTENCY_CONFIG": path})


@pytest.mark.parametrize("text", ["nan", "-1", "0", "soon", "1e12", "inf"])
def test_a_connect_timeout_must_be_a_time(text: str) -> None:
    """A number of seconds above zero, that sockets can count."""
    with pytest.raises(SettingsError, match="CONSISTENCY_CONNECT_TIMEOUT: connect timeout"):
        load_settings(GivenOptions(), {"CONSISTENCY_CONNECT_TIMEOUT": text})


def test_a_password_file_is_read_without_its_line_end(tmp_path: Path) -> None:
    """Editors end files with a newline, passwords do not; spaces are the password's own."""
    path = tmp_path / "password"
    path.write_text(" pass word \n")
    environ = {"CONSISTENCY_USERNAME": "u", "CONSISTENCY_PASSWORD_FILE": str(path)}
    assert load_settings(GivenOptions(), environ).password == " pass word "
    with pytest.raises(SettingsError, match="PASSWORD_FILE"):
        load_settings(GivenOptions(), {**environ, "CONSISTENCY_PASSWORD_FILE": str(tmp_path / "none")})
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"PASSWORD_FILE .*: not a text file"):
        load_settings(GivenOptions(), environ)


def test_a_misspelt_variable_is_refused() -> None:
    """Unread, another cluster is checked, or a login sent without TLS; those of other programs are left alone."""
    for name, meant in (
        ("CONSISTENCY_HOST", "CONSISTENCY_HOSTS"),
        ("CONSISTENCY_TLS_CAFILE", "CONSISTENCY_TLS_CA_FILE"),
        ("CONSISTENCY_TARGET_PASSWRD", "CONSISTENCY_TARGET_PASSWORD"),
    ):
        for load in (lambda env: load_settings(GivenOptions(), env), lambda env: load_ledger_path(None, None, env)):
            with pytest.raises(SettingsError, match=f"{name} is set, and nothing reads it; did you mean {meant}\\?"):
                load({name: "canary"})
        load_settings(GivenOptions(), {name: ""})
    others = ("CONSISTENCY_LEVEL", "CONSISTENCY_SERVICE_PORT", "CONSISTENCY_PORT_9477_TCP", "CONSISTENCY_TEST_HOSTS")
    load_settings(GivenOptions(), dict.fromkeys(others, "theirs"))


@pytest.mark.parametrize("place", ["consistency", "repair", "sandbox"])
def test_every_variable_that_is_read_is_known(place: str) -> None:
    """Else it would be refused as a misspelling of its neighbour."""
    texts = (path.read_text(encoding="utf-8") for path in Path(place).rglob("*.py"))
    for name in sorted({name for text in texts for name in re.findall(r"\bCONSISTENCY_[A-Z_]*[A-Z]\b", text)}):
        require_no_misspelt({name: "x"})


def test_a_truth_that_is_none_in_cqlshs_file_is_one_line(tmp_path: Path) -> None:
    """Whether to encrypt is not guessed."""
    path = tmp_path / "cqlshrc"
    path.write_text("[connection]\nhostname = a\nssl = maybe\n")
    with pytest.raises(SettingsError, match="cqlshrc ssl: 'maybe' is neither true nor false"):
        load_settings(GivenOptions(cqlshrc=str(path)), {})


@pytest.mark.parametrize(("given", "protocol"), [("4", 4), ("5", 5), ("", None)])
def test_the_protocol_may_be_forced(given: str, protocol: int | None) -> None:
    """By the environment; where nothing is said, driver and server agree on one."""
    assert load_settings(GivenOptions(), {"CONSISTENCY_PROTOCOL": given}).protocol == protocol


@pytest.mark.parametrize("given", ["3", "6", "five"])
def test_a_protocol_that_cannot_be_used_is_refused(given: str) -> None:
    """In one line that names those which can."""
    with pytest.raises(SettingsError, match="4 or 5"):
        load_settings(GivenOptions(), {"CONSISTENCY_PROTOCOL": given})


def test_host_names_are_verified_unless_it_is_spelled_out(tmp_path: Path) -> None:
    """By each source of TLS, cqlsh's file too, which knows no entry for it: false by the TOML file or environment."""
    cqlshrc = tmp_path / "cqlshrc"
    cqlshrc.write_text("[connection]\nssl = true\n[ssl]\ncertfile = /ca.pem\n")
    rc = GivenOptions(cqlshrc=str(cqlshrc))
    off = config(tmp_path, "[connection]\ntls = {check_hostname = false}\n")
    for given, environ, checked in (
        (GivenOptions(tls=True), {}, True),
        (GivenOptions(), {"CONSISTENCY_TLS_CA_FILE": "/ca.pem"}, True),
        (GivenOptions(), {"CONSISTENCY_TLS_CA_FILE": "/ca.pem", "CONSISTENCY_TLS_CHECK_HOSTNAME": "false"}, False),
        (rc, {}, True),
        (rc, {"CONSISTENCY_TLS_CHECK_HOSTNAME": "false"}, False),
        (replace(rc, config=off), {}, False),
        (replace(rc, config=off), {"CONSISTENCY_TLS_CHECK_HOSTNAME": "true"}, True),
    ):
        tls = load_settings(given, environ).tls
        assert tls is not None
        assert (tls.check_hostname, tls.verify) == (checked, True)
    with pytest.raises(SettingsError, match="TLS_CHECK_HOSTNAME must be true or false"):
        load_settings(GivenOptions(), {"CONSISTENCY_TLS_CHECK_HOSTNAME": "no"})


@pytest.mark.parametrize(("validate", "verified"), [("false", False), ("False", False), ("true", True), ("no", True)])
def test_cqlshs_validate_means_what_it_means_to_cqlsh(tmp_path: Path, validate: str, verified: bool) -> None:
    """Only false is false."""
    cqlshrc = tmp_path / "cqlshrc"
    cqlshrc.write_text(f"[connection]\nssl = true\n[ssl]\nvalidate = {validate}\n")
    tls = load_settings(GivenOptions(cqlshrc=str(cqlshrc)), {}).tls
    assert tls is not None
    assert tls.verify is verified


@pytest.mark.parametrize(("entry", "says"), [("check_hostname", "host name"), ("verify", "no certificate")])
def test_a_command_says_in_one_line_that_tls_verifies_less(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], entry: str, says: str
) -> None:
    """On stderr, before anything else, and no warning of Python's beside it."""
    given = dict.fromkeys(("hosts", "port", "cqlshrc", "username", "tls"))
    target = take_connection({**given, "config": config(tmp_path, f"[connection]\ntls = {{{entry} = false}}\n")})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: TLS verifies no ")
    assert says in line
    assert target.settings.ssl_context() is not None
    take_connection({**given, "config": config(tmp_path, "[connection]\ntls = true\n")})
    assert not capsys.readouterr().err


def test_the_target_has_settings_of_its_own(tmp_path: Path) -> None:
    """Its own table, variables and options: nothing that was said of the source is believed of it, a login least."""
    text = TOML + '[target]\nhosts = "t"\nport = 7\nusername = "tu"\npassword = "target secret"\ntls = true\n'
    given = GivenOptions(config=config(tmp_path, text))
    environ = {"CONSISTENCY_HOSTS": "env", "CONSISTENCY_USERNAME": "other", "CONSISTENCY_TLS_CA_FILE": "ca"}
    target = load_settings(given, environ, TARGET)
    assert target.contact_points == (("t", 7),)
    assert (target.username, target.password) == ("tu", "target secret")
    assert isinstance(target.tls, TlsSettings)
    assert target.tls.ca_file is None
    mine = {"CONSISTENCY_TARGET_HOSTS": "e", "CONSISTENCY_TARGET_PASSWORD": "p", "CONSISTENCY_TARGET_TLS_CA_FILE": "x"}
    target = load_settings(given, mine, TARGET)
    assert (target.contact_points, target.password) == ((("e", 7),), "p")
    assert isinstance(target.tls, TlsSettings)
    assert target.tls.ca_file == "x"
    assert load_settings(given, mine).contact_points == (("10.0.0.1", 9042), ("10.0.0.2", 9999))


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        ("", 0o600, "no target cluster is named: give --target-hosts, CONSISTENCY_TARGET_HOSTS"),
        ("[target]\nhosts = 'a'\npassword = 'p'\nusername = 'u'\n", 0o644, "chmod 600"),
        ("[target]\nhosts = 'a'\nusername = 'u'\n", 0o600, "CONSISTENCY_TARGET_PASSWORD_FILE"),
        ("[target]\nhosts = 'a:b'\n", 0o600, r"\[target\] hosts 'a:b'"),
        ("[target]\nhots = 'a'\n", 0o600, r"\[target\] knows no 'hots'"),
        ("[target]\nhosts = 'a'\naddresses = {x = 1}\n", 0o600, r"\[target.addresses\]"),
    ],
)
def test_a_mistake_in_the_settings_of_the_target_names_them(tmp_path: Path, text: str, mode: int, words: str) -> None:
    """Not those of the source; a file with the target's password must not be readable by others either."""
    with pytest.raises(SettingsError, match=words):
        load_settings(GivenOptions(config=config(tmp_path, text, mode)), {}, TARGET)


def test_cqlshs_own_file_is_not_about_the_target(tmp_path: Path) -> None:
    """The file in the home directory names the cluster that its user works with; another one must be named."""
    cqlshrc = tmp_path / "home" / ".cassandra" / "cqlshrc"
    cqlshrc.parent.mkdir(parents=True)
    cqlshrc.write_text("[authentication]\nusername = rc\npassword = secret\n[connection]\nhostname = rc\n")
    assert load_settings(GivenOptions(), {}).username == "rc"
    assert load_settings(GivenOptions(hosts="t"), {}, TARGET).username is None
    named = load_settings(GivenOptions(cqlshrc=str(cqlshrc)), {}, TARGET)
    assert (named.username, named.contact_points) == ("rc", (("rc", 9042),))


def test_both_clusters_are_taken_from_one_command_line(tmp_path: Path) -> None:
    """Each with the options that name it again, for the commands that we suggest next."""
    given: dict[str, object] = dict.fromkeys(("port", "cqlshrc", "username", "tls"))
    given |= {f"target_{name}": None for name in given}
    given |= {"hosts": "a", "config": config(tmp_path, ""), "target_hosts": "b", "target_port": 7}
    source, target = take_both(given)
    assert not given
    assert source.settings.contact_points == (("a", 9042),)
    assert target.settings.contact_points == (("b", 7),)
    assert target.words == ("--target-hosts", "b", "--target-port", "7")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[conection]\nhosts = 'a'\n", r"there is no table \[conection\]; did you mean \[connection\]\?"),
        ("[x]\n", r"no table \[x\]; it has \[connection\], \[target\], \[ledger\], \[repair\]$"),
        ("hosts = 'a'\n", r"no table \[hosts\]"),
    ],
)
def test_a_table_that_nobody_reads_is_a_mistake(tmp_path: Path, text: str, words: str) -> None:
    """A misspelt [connection] left unread would have the cluster at 127.0.0.1 checked in place of the one meant."""
    with pytest.raises(SettingsError, match=words):
        load_settings(GivenOptions(config=config(tmp_path, text)), {})


def test_a_wrong_port_names_where_it_stands(tmp_path: Path) -> None:
    """Nobody looks for an option that was not given."""
    cqlshrc = tmp_path / "rc"
    for text, environ, words in (
        ("port = 90x", {}, f"--cqlshrc {cqlshrc} port: '90x'"),
        ("hostname = a:b", {}, f"--cqlshrc {cqlshrc} hostname 'a:b'"),
        ("", {"CONSISTENCY_PORT": "y"}, "CONSISTENCY_PORT: 'y'"),
        ("", {"CONSISTENCY_HOSTS": "a:b"}, "CONSISTENCY_HOSTS 'a:b'"),
    ):
        cqlshrc.write_text(f"[connection]\n{text}\n")
        with pytest.raises(SettingsError, match=f"^{re.escape(words)}.* is not a port"):
            load_settings(GivenOptions(cqlshrc=str(cqlshrc)), environ)
