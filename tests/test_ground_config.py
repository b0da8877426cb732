"""Settings: what is read, who wins, and what is said when something is wrong."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.config.addresses import parse_address
from edged.config.load import find_unread, load
from edged.config.model import (
    SECTIONS,
    CameraSettings,
    Config,
    IssuerSettings,
    ListenerPolicy,
    ListenPolicies,
    ListenSettings,
    PathSettings,
    settings_of,
)
from edged.config.places import find_line
from edged.config.render import render, render_defaults
from edged.config.secrets import load_shared_secrets
from edged.errors import ConfigError

ROOT = Path(__file__).parent.parent


def write(folder: Path, text: str, name: str = "50-mine.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def refusal(folder: Path, text: str, environ: dict[str, str] | None = None) -> ConfigError:
    write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load(folder, environ or {})
    return caught.value


def test_nothing_written_gives_the_defaults(tmp_path: Path) -> None:
    """A box without any file of its own runs, also where the folder is missing."""
    assert load(tmp_path / "absent", {}) == Config() == load(tmp_path, {})
    assert Config().limits.connections == 2048
    assert Config().listen.local == ("127.0.0.1:8003", "[::1]:8003")


def test_shipped_defaults_are_the_generated_ones() -> None:
    """etc/defaults.toml documents what the program does; it is made by render_defaults() and by nothing else."""
    assert (ROOT / "etc/defaults.toml").read_text() == render_defaults()


def test_shipped_defaults_load_and_change_nothing(tmp_path: Path) -> None:
    """Whoever copies defaults.toml into conf.d has the defaults."""
    write(tmp_path, render_defaults())
    assert load(tmp_path, {}) == Config()


def test_every_setting_has_its_line_of_help() -> None:
    """No key without an explanation, and each stands in the shipped file."""
    shown = render_defaults()
    for name, kind in SECTIONS.items():
        for setting in settings_of(kind).values():
            assert setting.help.endswith("."), f"{name}.{setting.name}"
            if setting.name in ("policy", "issuers"):
                assert f"[{name}.{setting.name}." in shown
            else:
                assert f"{setting.name} = " in shown
    for kind in (ListenerPolicy, IssuerSettings):
        for setting in settings_of(kind).values():
            assert setting.help.endswith("."), setting.name
            assert f"\n#{setting.name} = " in shown


def test_example_loads_when_uncommented(tmp_path: Path) -> None:
    """Every commented line of the example is a setting that is accepted."""
    lines = (ROOT / "etc/conf.d/example.toml").read_text().splitlines()
    assert load(ROOT / "etc/conf.d", {}) == Config(), "as shipped it sets nothing"
    write(
        tmp_path, "\n".join(line[1:] if line.startswith("#") and not line.startswith("# ") else line for line in lines)
    )
    config = load(tmp_path, {})
    assert [camera.name for camera in config.camera] == ["Entrance", "Workbench", "Test"]
    assert config.camera[1].source == "ID_SERIAL=Vendor_Camera_0001"
    assert config.listen.compat == ()
    assert config.listen.policy.tokens.paths == ("/jwks-path", "/.well-known/*")
    assert config.auth.shared_secrets == {"issuer": "/etc/edged/issuer.secret"}


def test_commented_cameras_of_the_defaults_load_too(tmp_path: Path) -> None:
    """The shape of a camera can be copied from defaults.toml."""
    lines = [line[1:] for line in render_defaults().splitlines() if line.startswith("#") and line[1:2] not in (" ", "")]
    write(tmp_path, "\n".join(lines))
    assert load(tmp_path, {}).camera[0] == CameraSettings(name="Entrance", source="rtsp://192.0.2.7/stream1")


def test_empty_paths_are_filled_in() -> None:
    """Readers of settings get folders, not the rule by which they are found."""
    config = Config(paths=PathSettings(state=Path("/s"), runtime=Path("/r")))
    assert config.paths.media == Path("/s/media")
    assert config.snapshots.folder == Path("/s/media/snapshots")
    assert config.listen.unix == "/r/edged.sock"


def test_given_paths_stay(tmp_path: Path) -> None:
    """What is written wins over what would be filled in."""
    write(tmp_path, '[paths]\nmedia = "/m"\n[snapshots]\nfolder = "/p"\n[listen]\nunix = "off"\n')
    config = load(tmp_path, {})
    assert (config.paths.media, config.snapshots.folder, config.listen.unix) == (Path("/m"), Path("/p"), "off")


def test_later_files_win_key_by_key(tmp_path: Path) -> None:
    """A file of one's own changes what it names and nothing else; the environment wins over files."""
    write(tmp_path, '[limits]\nconnections = 1\nbatch = 2\n[auth.shared_secrets]\na = "/a"\n', "10.toml")
    write(tmp_path, 'limits.batch = 3\n[auth.shared_secrets]\nb = "/b"\n', "20.toml")
    write(tmp_path, "[limits]\nbatch = 99\n", "30.toml.off")
    config = load(tmp_path, {"EDGED_LIMITS_CALLS_IN_FLIGHT": "4", "EDGED_LIMITS_CONNECTIONS": "5"})
    assert (config.limits.connections, config.limits.batch, config.limits.calls_in_flight) == (5, 3, 4)
    assert config.auth.shared_secrets == {"a": "/a", "b": "/b"}


def test_cameras_of_several_files_add_up(tmp_path: Path) -> None:
    """One file for each camera is a good habit."""
    write(tmp_path, '[[camera]]\nname = "B"\nsource = "test"\n', "2.toml")
    write(tmp_path, '[[camera]]\nname = "A"\nsource = "rtsp://h/1"\nsize = "1280x720"\nrate = 10\n', "1.toml")
    first, second = load(tmp_path, {}).camera
    assert (first.name, first.width, first.height, first.rate, first.kind) == ("A", 1280, 720, 10.0, "rtsp")
    assert (second.name, second.kind) == ("B", "test")


@pytest.mark.parametrize(
    ("variable", "text", "section", "key", "value"),
    [
        ("EDGED_LISTEN_MAIN", "127.0.0.1:0, [::1]:0", "listen", "main", ("127.0.0.1:0", "[::1]:0")),
        ("EDGED_LISTEN_COMPAT", "off", "listen", "compat", ()),
        (
            "EDGED_LISTEN_POLICY_TOKENS_PATHS",
            "/jwks-path, /.well-known/*",
            "listen",
            "policy",
            ListenPolicies(tokens=ListenerPolicy(paths=("/jwks-path", "/.well-known/*"))),
        ),
        ("EDGED_METRICS_ENABLED", "No", "metrics", "enabled", False),
        ("EDGED_LIMITS_STALL_SECONDS", "2.5", "limits", "stall_seconds", 2.5),
        ("EDGED_PATHS_STATE", "/tmp/x", "paths", "state", Path("/tmp/x")),
        (
            "EDGED_AUTH_SHARED_SECRETS",
            "a=/a, b=credential:b",
            "auth",
            "shared_secrets",
            {"a": "/a", "b": "credential:b"},
        ),
        ("EDGED_LOG_LEVEL", "debug", "log", "level", "debug"),
        ("EDGED_AUTH_PASSWORD_COST", "7", "auth", "password_cost", 7),
    ],
)
def test_environment_sets_every_kind(variable: str, text: str, section: str, key: str, value: object) -> None:
    """EDGED_<SECTION>_<KEY>, lists comma separated."""
    config = load(Path("/nonexistent"), {variable: text, "EDGED_CONFIG_DIR": "/x", "EDGED_ELSEWHERE": "1", "HOME": "/"})
    assert getattr(getattr(config, section), key) == value


def test_process_environment_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to hand it over."""
    monkeypatch.setenv("EDGED_LIMITS_BATCH", "7")
    assert load(tmp_path).limits.batch == 7


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", ""),
        ("https://box.example/", "https://box.example"),
        ("http://[2001:db8::1]:8002", "http://[2001:db8::1]:8002"),
        ("https://box.example/edged/", "https://box.example/edged"),
        ("box.example", None),
        ("ftp://box.example", None),
        ("https://", None),
        ("https://box.example:x", None),
        ("https://u:p@box.example", None),
        ("https://box.example/?a=b", None),
        ("https://box.example/#a", None),
        ("https://box.example/a b", None),
    ],
)
def test_the_public_url_is_one(tmp_path: Path, text: str, url: str | None) -> None:
    """What stands in front of links: without a slash at its end, and nothing that hides what follows."""
    if url is None:
        assert "public_url" in str(refusal(tmp_path, f'[listen]\npublic_url = "{text}"\n'))
    else:
        write(tmp_path, f'[listen]\npublic_url = "{text}"\n')
        assert load(tmp_path, {}).listen.public_url == url


@pytest.mark.parametrize(
    "key", sorted(settings_of(ListenSettings).keys() - {"unix", "policy", "trusted_proxies", "public_url"})
)
def test_one_address_needs_no_brackets(tmp_path: Path, key: str) -> None:
    """Every listener's single address may be written as a string, "off" as none; what is no address is refused."""
    for text, expected in (
        ('"127.0.0.1:1"', ("127.0.0.1:1",)),
        ('"off"', ()),
        ("[]", ()),
        ('["[::1]:2"]', ("[::1]:2",)),
    ):
        write(tmp_path, f"[listen]\n{key} = {text}\n")
        assert getattr(load(tmp_path, {}).listen, key) == expected
    for text in ('"nowhere"', '["127.0.0.1:1", "nowhere"]'):
        problem = refusal(tmp_path, f"[listen]\n{key} = {text}\n")
        assert "'nowhere' is not HOST:PORT" in str(problem)
        assert problem.fields["line"] == 2


def test_a_typing_error_names_file_line_and_nearest_key(tmp_path: Path) -> None:
    """An unknown key never passes in silence."""
    problem = refusal(tmp_path, "# mine\n[limits]\nbatch = 1\nconections = 5\n")
    assert str(tmp_path / "50-mine.toml") + " line 4" in str(problem)
    assert "did you mean limits.connections?" in problem.hint
    assert problem.fields["nearest"] == "connections"
    assert problem.fields["line"] == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[limit]\nbatch = 1\n", ["line 1", "limit is not a section", "did you mean limits?"]),
        ("[limits]\nbatch = 'x'\n", ["line 2", "limits.batch", "expected int, got str"]),
        ("[limits]\nbatch = 0\n", ["line 2", "limits.batch", ">= 1"]),
        ("[auth]\npassword_cost = 1\n", ["line 2", "auth.password_cost", "expected int >= 2", "2 to 10"]),
        ("[auth]\npassword_cost = 11\n", ["line 2", "auth.password_cost", "expected int <= 10"]),
        ("[auth]\npassword_cost = '3'\n", ["line 2", "auth.password_cost", "expected int, got str"]),
        ("[limits]\nqqq = 0\n", ["line 2", "limits.qqq is not a setting", "edged config show"]),
        ("limits = 3\n", ["line 1", "limits is a section", "write [limits]"]),
        ("[limits\n", ["is not TOML", "line 1"]),
        ("[camera]\nname = 'x'\n", ["line 1", "write [[camera]]"]),
        ("camera = [3]\n", ["line 1", "camera is a section"]),
        ("[[camera]]\nname = 'x'\n", ["line 1", "has no source"]),
        (
            "[[camera]]\nname = 'x'\nsource = 'test'\nsizes = 1\n",
            ["line 4", "camera.sizes", "did you mean camera.size?"],
        ),
        ("[[camera]]\nname = 'x'\nsource = 'test'\nmode = 'ever'\n", ["camera.mode: must be one of on_demand, always"]),
        ("[[camera]]\nname = 'x'\nsource = '/dev/video0'\n", ["line 1", "source must be an rtsp:// URL"]),
        ("[[camera]]\nname = '../x'\nsource = 'test'\n", ["line 1", "name must be 1 to 64 characters"]),
        ("[[camera]]\nname = 'x'\nsource = 'test'\nsize = 'big'\n", ["line 1", "size must be WIDTHxHEIGHT"]),
        (
            "[[camera]]\nname = 'x'\nsource = 'test'\n[[camera]]\nname = 'x'\nsource = 'test'\n",
            ["line 4", "two cameras"],
        ),
        (
            "[[camera]]\nname = 'x'\nsource = 'test'\nbitrate = 20000000\npre_roll_seconds = 30\n",
            ["line 1", "the pre-rolls need 85.0 MB of memory by the cameras' bit rates; there are 64 MB"],
        ),
        ("[recording]\npre_roll_folder = '/dev/shm/%a'\n", ["line 2", "pre_roll_folder holds a %"]),
        ("[listen]\nlocal = 'off'\nmain = ['localhost']\n", ["line 3", "is not HOST:PORT"]),
        ("[listen]\nmain = ['::1:80']\n", ["line 2", "brackets"]),
        ("[mediamtx]\nrtsp = '8554'\n", ["line 2", "is not HOST:PORT"]),
        ("[paths]\nstate = 'here'\n", ["line 2", "paths.state", "absolute path"]),
        ("[paths]\nstate = 3\n", ["line 2", "paths.state", "expected str, got int"]),
        ("[log]\nlevel = 'loud'\n", ["line 2", "log.level: must be one of debug, info, warning, error"]),
        ("[auth]\nlocal_keys = 'none'\n", ["line 2", "auth.local_keys: must be one of root, off"]),
        (
            "[auth.issuers.x]\nissuer = 'https://e'\nkey = '/k'\nroles = {A = 'boss'}\n",
            ["line 1", "auth.issuers.x.roles: must be one of monitor, viewer"],
        ),
    ],
)
def test_a_wrong_setting_is_named_with_its_place(tmp_path: Path, text: str, words: list[str]) -> None:
    """Every refusal says which file, which line, which key, and what to do."""
    problem = refusal(tmp_path, text)
    assert "50-mine.toml" in str(problem)
    assert [word for word in words if word not in str(problem)] == []
    assert problem.hint


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        ("EDGED_LIMITS_BATHC", "1", ["EDGED_LIMITS_BATHC", "did you mean limits.batch?"]),
        ("EDGED_LIMIT_BATCH", "1", ["EDGED_LIMIT_BATCH", "did you mean limits?"]),
        ("EDGED_LIMITS_BATCH", "many", ["EDGED_LIMITS_BATCH", "expected a number"]),
        ("EDGED_LIMITS_STALL_SECONDS", "long", ["expected a number"]),
        ("EDGED_METRICS_ENABLED", "maybe", ["expected true or false"]),
        ("EDGED_CAMERA_NAME", "x", ["cameras cannot be set", "[[camera]]"]),
    ],
)
def test_a_wrong_variable_is_named(variable: str, text: str, words: list[str]) -> None:
    """What is set in the environment is checked as what is set in files."""
    with pytest.raises(ConfigError) as caught:
        load(Path("/nonexistent"), {variable: text})
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_refusal_never_shows_the_value(tmp_path: Path) -> None:
    """A source may hold a password, and refusals end in logs."""
    for line in ("source = ['hunter2']", "source = 'ftp://u:hunter2@h/'", "source = 'test'\nencoder = ['hunter2']"):
        assert "hunter2" not in str(refusal(tmp_path, f"[[camera]]\nname = 'x'\n{line}\n"))


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    """A file that cannot be read is not the same as none."""
    (tmp_path / "x.toml").symlink_to("gone")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path, {})
    (tmp_path / "x.toml").unlink()
    (tmp_path / "x.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(tmp_path, {})


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::]:0", ("::", 0)), (":8554", ("", 8554)), ("box:65535", ("box", 65535))],
)
def test_addresses_are_host_and_port(text: str, address: tuple[str, int]) -> None:
    """IPv6 in brackets, no host for every interface, port 0 for the kernel's choice."""
    assert parse_address(text) == address


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    """Nothing that somebody writes brings an error of another kind."""
    try:
        host, port = parse_address(text)
    except ValueError:
        return
    assert text.endswith(str(port)) or int(text.rpartition(":")[2]) == port
    assert host in text


@given(st.text(alphabet="[]camerlimts.= \"'\n#1", max_size=60))
def test_finding_a_line_never_fails(text: str) -> None:
    """The scan for a line is help, not a judge: any text gives a line of it, or 0."""
    for section, key, index in (("limits", "", 0), ("camera", "rate", 1)):
        assert 0 <= find_line(text, section, key, index) <= len(text.splitlines())


def test_lines_are_found_in_every_way_of_writing() -> None:
    """Dotted, inline, nested and repeated tables."""
    text = 'log.level = "info"\nmetrics = {enabled = true}\n["auth"."shared_secrets"]\na = "x"\n' + (
        "[[camera]]\nrate = 1\n[limits]\nrate = 9\n[[ camera ]]\n'rate' = 2\n"
    )
    assert tomllib.loads(text)["camera"][1]["rate"] == 2
    assert find_line(text, "log", "level") == 1
    assert find_line(text, "metrics", "enabled") == 2
    assert find_line(text, "auth", "shared_secrets") == 3
    assert find_line(text, "camera", "rate", 1) == 10
    assert find_line(text, "camera", index=1) == 9
    assert find_line(text, "paths", "state") == 0


def test_lines_of_tables_in_tables_are_found_as_far_as_they_are_written() -> None:
    """The key, or the table that is written in one line, or the nearest table around it."""
    text = (
        '[listen]\nmain = []\n[listen.policy.main] # ours\npaths = [\n  "/a",\n]\n[listen.policy]\nlocal.paths = []\n'
        + ('compat = {networks = []}\n[ listen . "policy" . tokens ]\nnetworks = []\n')
    )
    tomllib.loads(text)
    assert find_line(text, "listen.policy.main", "paths") == 4
    assert find_line(text, "listen.policy.main") == 3
    assert find_line(text, "listen.policy.local", "paths") == 8
    assert find_line(text, "listen.policy.compat", "networks") == 9
    assert find_line(text, "listen.policy.tokens", "networks") == 11
    assert find_line(text, "listen", "policy") == 3
    assert find_line(text, "listen.policy.other", "networks") == 3


# Shared secrets ------------------------------------------------------------------------------------------------------


def secrets_of(tmp_path: Path, source: str, credentials: Path | None = None) -> dict[str, str]:
    config = load(tmp_path / "none", {"EDGED_AUTH_SHARED_SECRETS": f"a={source}"})
    return load_shared_secrets(config, credentials)


def test_a_secret_is_read_from_its_file(tmp_path: Path) -> None:
    """The settings name files; the secret's text is nowhere in them."""
    path = tmp_path / "secret"
    path.write_text("s3cret\n")
    path.chmod(0o600)
    assert secrets_of(tmp_path, str(path)) == {"a": "s3cret\n"}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_a_secret_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    """The refusal names the file, its mode and the command that mends it."""
    path = tmp_path / "secret"
    path.write_text("s3cret\n")
    path.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        secrets_of(tmp_path, str(path))
    assert f"mode {mode:04o}" in str(caught.value)
    assert caught.value.hint == f"chmod 600 {path}"


def test_a_missing_or_empty_or_unreadable_secret_is_refused(tmp_path: Path) -> None:
    """A daemon does not start without a secret that it was told to have."""
    with pytest.raises(ConfigError, match="openssl rand"):
        secrets_of(tmp_path, str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match="not an absolute path"):
        secrets_of(tmp_path, "the-secret-itself")
    path = tmp_path / "secret"
    for data, word in ((b" \n", "empty"), (b"\xff\xfe", "UTF-8"), (b"x" * 70_000, "too large")):
        path.write_bytes(data)
        path.chmod(0o600)
        with pytest.raises(ConfigError, match=word):
            secrets_of(tmp_path, str(path))
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o700)
    with pytest.raises(ConfigError, match="Is a directory"):
        secrets_of(tmp_path, str(folder))


def test_a_systemd_credential_is_taken_by_name(tmp_path: Path) -> None:
    """credential:NAME is the file edged.NAME of the unit's credentials; systemd guards it, its mode says nothing."""
    (tmp_path / "edged.jwt").write_text("from systemd")
    (tmp_path / "edged.jwt").chmod(0o440)
    assert secrets_of(tmp_path, "credential:jwt", tmp_path) == {"a": "from systemd"}
    for credentials in (None, tmp_path / "absent"):
        with pytest.raises(ConfigError, match="LoadCredential="):
            secrets_of(tmp_path, "credential:jwt", credentials)
    with pytest.raises(ConfigError, match="not given"):
        secrets_of(tmp_path, "credential:../edged.jwt", tmp_path)


def test_a_credential_named_for_it_needs_no_setting(tmp_path: Path) -> None:
    """ImportCredential=edged.* and a credential edged.shared_secret.NAME are enough; a file that is named wins."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "edged.shared_secret.a").write_text("one")
    (credentials / "edged.shared_secret.b").write_text("two")
    (credentials / "edged.other").write_text("three")
    config = load(tmp_path, {"EDGED_AUTH_SHARED_SECRETS": "b=credential:other"}, credentials)
    assert load_shared_secrets(config, credentials) == {"a": "one", "b": "three"}


# Showing ------------------------


def test_what_is_in_force_is_shown_as_toml_without_passwords(tmp_path: Path) -> None:
    """`edged config show` can be pasted into a question to others."""
    write(
        tmp_path,
        '[[camera]]\nname = "A \\""\nencoder = "\\u007f"\nsource = "rtsp://u:hunter2@h/1"\n'
        '[auth.shared_secrets]\nx = "/x"\n',
    )
    shown = render(load(tmp_path, {}))
    assert "hunter2" not in shown
    document = tomllib.loads(shown)
    assert document["camera"][0]["name"] == 'A "'
    assert document["camera"][0]["encoder"] == "\x7f"
    assert document["camera"][0]["source"] == "rtsp://***@h/1"
    assert document["auth"]["shared_secrets"] == {"x": "/x"}
    assert document["paths"]["media"] == "/var/lib/edged/media"


def test_shown_settings_load_again(tmp_path: Path) -> None:
    """What is shown is what would be read."""
    config = load(tmp_path, {"EDGED_LISTEN_COMPAT": "off", "EDGED_LIMITS_STALL_SECONDS": "0.5"})
    (tmp_path / "again").mkdir()
    write(tmp_path / "again", render(config))
    assert load(tmp_path / "again", {}) == config


@pytest.mark.parametrize(
    "name", [".#a.toml", "._a.toml", ".a.toml.swp", "a.toml~", "#a.toml#", "a.toml.dpkg-old", "notes"]
)
def test_what_is_no_file_of_settings_is_passed_over_and_named(tmp_path: Path, name: str) -> None:
    """Copies and locks of editors, forks of other systems: they keep no box down, and `config check` names them."""
    write(tmp_path, "[limits]\nbatch = 7\n", "a.toml")
    (tmp_path / name).symlink_to("nobody@nowhere.1:2") if name == ".#a.toml" else write(tmp_path, "\x00\x05", name)
    (tmp_path / "old.toml").mkdir()
    assert load(tmp_path, {}).limits.batch == 7
    assert find_unread(tmp_path).keys() == {tmp_path / name, tmp_path / "old.toml"}
    assert find_unread(tmp_path)[tmp_path / "old.toml"] == "a folder"


def test_what_would_be_waited_for_is_passed_over_and_named(tmp_path: Path) -> None:
    """A pipe, and a link to a device without an end: neither the start nor SIGHUP hangs."""
    write(tmp_path, "[limits]\nbatch = 7\n", "a.toml")
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    assert load(tmp_path, {}).limits.batch == 7
    assert set(find_unread(tmp_path).values()) == {"a pipe, a socket or a device"}


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    """Editors of other systems write one."""
    (tmp_path / "a.toml").write_bytes("\ufeff[limits]\nbatch = 7\n".encode())
    assert load(tmp_path, {}).limits.batch == 7


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ('[listen]\nmain = ["127.0.0.1:8002", "127.0.0.1:8002"]', ("listen.main", "listen.main")),
        ('[listen]\nmain = ":8080"', ("listen.compat", "listen.main")),
        ('[listen]\nlocal = "localhost:8002"', ("listen.local", "listen.main")),
        ('[mediamtx]\nhls = ":8002"', ("mediamtx.hls", "listen.main")),
        ('[mediamtx]\nhls = "[::1]:8554"', ("mediamtx.hls", "mediamtx.rtsp")),
        ('[mediamtx]\nsrt = ":8189"', ("mediamtx.srt", "mediamtx.webrtc_udp")),
    ],
)
def test_the_same_address_twice_is_refused_with_both_settings(tmp_path: Path, text: str, keys: tuple[str, str]) -> None:
    """It would be blamed on another program."""
    problem = refusal(tmp_path, text)
    assert all(key in str(problem) for key in keys)
    assert "50-mine.toml line 2" in str(problem)
    assert "use different ports" in problem.hint


@pytest.mark.parametrize(
    "text",
    [
        '[listen]\nmain = ["127.0.0.1:0", "127.0.0.1:0"]\ncompat = ":0"',
        '[listen]\nmain = ["127.0.0.1:8002", "[::1]:8002", "192.0.2.1:8002"]',
        '[mediamtx]\nsrt = ":8554"',
        '[mediamtx]\nenabled = false\nhls = ":8002"',
        '[listen]\nmain = "off"\ncompat = ":8002"',
    ],
)
def test_addresses_that_can_be_had_together_are_taken(tmp_path: Path, text: str) -> None:
    """Other hosts, other protocols, a port that the kernel picks, what is off. Nothing is raised."""
    write(tmp_path, text)
    load(tmp_path, {})


@pytest.mark.parametrize(
    "source",
    ["rtsp://ann:it's@cam/a", 'rtsp://ann:s"t@cam/a', "rtsp://ann:s t@cam/a", "rtsp://cam/a?password=s1&x=1",
     "rtsp://cam/a?pwd=s1", "rtsp://cam/a?user=s1&apikey=s1"],
)  # fmt: skip
def test_no_password_of_a_camera_is_shown(tmp_path: Path, source: str) -> None:
    """Quotes and blanks in it, or its place in the query, do not bring it out."""
    write(tmp_path, f'[[camera]]\nname = "A"\nsource = {json.dumps(source)}\n')
    shown = tomllib.loads(render(load(tmp_path, {})))["camera"][0]["source"]
    assert shown.startswith("rtsp://")
    for secret in ("it's", 's"t', "s t", "s1", "ann"):
        assert secret not in shown
