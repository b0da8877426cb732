"""`[auth.issuers.NAME]`: what is wrong with an outside issuer is said before a token of it comes."""

from __future__ import annotations

from pathlib import Path
from typing import get_args, get_type_hints

import msgspec
import pytest
from cli_helpers import Shell, write_config
from issuer_helpers import Company

from edged.config.load import load
from edged.config.model import Config, IssuerSettings
from edged.config.render import render, render_defaults
from edged.credentials.issuers import OUTSIDE_ALGORITHMS
from edged.credentials.role_claims import RoleClaim
from edged.errors import ConfigError
from edged.signing.issuers import Issuer, make_record

GOOD = 'issuer = "https://login.example.com/"\njwks = "https://login.example.com/jwks.json"\n'


def write(folder: Path, text: str, name: str = "50.toml") -> Path:
    (folder / name).write_text(text)
    return folder


def test_an_issuer_is_trusted_as_its_table_says(tmp_path: Path) -> None:
    """With defaults, and with everything set; two files may hold one each."""
    write(tmp_path, f"[auth.issuers.company]\n{GOOD}", "1.toml")
    everything = (
        '[auth.issuers.partner-2]\nissuer = ""\nkey = "/etc/edged/partner.pem"\nalgorithms = ["PS256"]\n'
        'audience = ["box"]\nceiling = "admin"\n'
    )
    write(tmp_path, everything, "2.toml")
    config = load(tmp_path, {})
    company = config.auth.issuers["company"]
    assert (company.algorithms, company.audience, company.ceiling) == (("RS256", "ES256"), (), "viewer")
    first, second = (Issuer(name, given) for name, given in config.auth.issuers.items())
    assert (first.record.name, first.place, first.is_pem) == ("company", "https://login.example.com/jwks.json", False)
    assert (second.record.issuer, second.place, second.is_pem) == ("", "/etc/edged/partner.pem", True)
    assert (second.record.algorithms, second.record.ceiling) == (("PS256",), "admin")
    assert second.record.audiences == {"box"}


def test_a_later_file_replaces_an_issuer_of_the_same_name(tmp_path: Path) -> None:
    """The whole of it: halves of two files make no third issuer."""
    write(tmp_path, f'[auth.issuers.company]\n{GOOD}ceiling = "admin"\n', "1.toml")
    write(tmp_path, '[auth.issuers.company]\nissuer = "x"\nkey = "/x.pem"\n', "2.toml")
    assert load(tmp_path, {}).auth.issuers == {"company": IssuerSettings(issuer="x", key="/x.pem")}


@pytest.mark.parametrize(
    "url",
    [
        "/etc/edged/jwks.json", "https://login.example.com", "https://login.example.com:8443/a/b?c=d", "http://127.0.0.1/k",
        "http://localhost:9000/k", "http://[::1]:9000/k", "http://127.8.8.8/k", "https://[2001:db8::1]/k",
    ],
)  # fmt: skip
def test_keys_may_stand_in_a_file_behind_tls_or_on_this_machine(tmp_path: Path, url: str) -> None:
    """Everything else would be whatever somebody on the way says."""
    write(tmp_path, f'[auth.issuers.x]\nissuer = "x"\njwks = "{url}"\n')
    assert load(tmp_path, {}).auth.issuers["x"].jwks == url


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ('jwks = "https://h/k"', "auth.issuers.x has no issuer"),
        ('issuer = "x"', "exactly one of jwks and key"),
        ('issuer = "x"\njwks = "/a"\nkey = "/b"', "exactly one of jwks and key"),
        ('issuer = ""\njwks = "https://h/k"', "needs a key file"),
        ('issuer = "x"\nkey = "x.pem"', "key must be an absolute path"),
        ('issuer = "x"\njwks = "jwks.json"', "must be an absolute path or an https://"),
        ('issuer = "x"\njwks = "ftp://h/k"', "must be an absolute path or an https://"),
        ('issuer = "x"\njwks = "file:///etc/k"', "must be an absolute path or an https://"),
        ('issuer = "x"\njwks = "https:///k"', "must be an absolute path or an https://"),
        ('issuer = "x"\njwks = "http://login.example.com/k"', "with http:// is allowed on this machine only"),
        ('issuer = "x"\njwks = "http://192.0.2.1/k"', "with http:// is allowed on this machine only"),
        ('issuer = "x"\njwks = "http://localhost.evil.example/k"', "with http:// is allowed on this machine only"),
        ('issuer = "x"\njwks = "https://user:pass-word@h/k"', "user name or password"),
        ('issuer = "x"\njwks = "https://h/k#x"', "must be an ASCII URL"),
        ('issuer = "x"\njwks = "https://h/a b"', "must be an ASCII URL"),
        ('issuer = "x"\njwks = "https://hé/k"', "must be an ASCII URL"),
        ('issuer = "x"\njwks = "https://h:port/k"', "[Pp]ort"),
        ('issuer = "x"\nkey = "/k"\nalgorithms = []', "algorithms: expected"),
        ('issuer = "x"\nkey = "/k"\nalgorithms = ["HS256"]', "algorithms: must be one of RS256"),
        ('issuer = "x"\nkey = "/k"\nalgorithms = ["none"]', "algorithms: must be one of RS256"),
        ('issuer = "x"\nkey = "/k"\nroles = { boss = "root" }', r"auth\.issuers\.x\.roles: must be one of"),
        ('issuer = "x"\nkey = "/k"\nroles_claim = ["a"]', r"auth\.issuers\.x\.roles_claim: expected str"),
        ('issuer = "x"\nkey = "/k"\nrole_claim = "a"', r"did you mean auth\.issuers\.x\.roles_claim"),
        ('issuer = "x"\nkey = "/k"\nceiling = "root"', "ceiling: must be one of monitor"),
        ('issuer = "x"\nkey = "/k"\naudience = "box"', "audience: expected"),
        ('issuer = 5\nkey = "/k"', "issuer: expected"),
        ('issuer = "x"\nkey = "/k"\nceilling = "admin"', r"did you mean auth\.issuers\.x\.ceiling"),
        ('issuer = "edged"\nkey = "/k"', "'edged' is already used"),
        ('issuer = "camera-service"\nkey = "/k"', "'camera-service' is already used"),
        (
            'issuer = "y"\nkey = "/k"\n[auth.issuers.z]\nissuer = "y"\nkey = "/l"',
            r"z: the issuer 'y' is already used by auth\.issuers\.x",
        ),
    ],
)  # fmt: skip
def test_a_wrong_table_is_refused_by_name_with_its_line(tmp_path: Path, table: str, says: str) -> None:
    """The file, the line of the table and what to do; a password in a URL is not repeated."""
    write(tmp_path, f'[log]\nlevel = "info"\n\n[auth.issuers.x]\n{table}\n')
    with pytest.raises(ConfigError, match=says) as caught:
        load(tmp_path, {})
    assert "50.toml line 4" in caught.value.sentence
    assert "auth.issuers." in str(caught.value)
    assert caught.value.hint
    assert "pass-word" not in str(caught.value)


@pytest.mark.parametrize("name", ["Company", "a b", "-x", "x" * 33, "ü", ""])
def test_a_name_is_short_and_plain(tmp_path: Path, name: str) -> None:
    """It stands in log lines and metrics."""
    write(tmp_path, f'[auth.issuers."{name}"]\n{GOOD}')
    with pytest.raises(ConfigError, match="is not a valid name"):
        load(tmp_path, {})


def test_eight_issuers_are_enough(tmp_path: Path) -> None:
    """Each has a series of its own."""
    for number in range(8):
        write(tmp_path, f'[auth.issuers.i{number}]\nissuer = "{number}"\nkey = "/k"\n', f"{number}.toml")
    assert len(load(tmp_path, {}).auth.issuers) == 8
    write(tmp_path, '[auth.issuers.i8]\nissuer = "8"\nkey = "/k"\n')
    with pytest.raises(ConfigError, match="there are 9 issuers"):
        load(tmp_path, {})


def test_an_issuer_is_no_word(tmp_path: Path) -> None:
    """In a file or in the environment: each is a table."""
    write(tmp_path, 'auth.issuers = "company"\n')
    with pytest.raises(ConfigError, match=r"auth\.issuers is a section"):
        load(tmp_path, {})
    (tmp_path / "50.toml").unlink()
    with pytest.raises(ConfigError, match=r"auth\.issuers\.a is a section"):
        load(tmp_path, {"EDGED_AUTH_ISSUERS": "a=b"})


def test_the_defaults_show_every_key_of_an_issuer_and_what_is_in_force_loads(tmp_path: Path) -> None:
    """defaults.toml documents the table; `edged config show` prints it so that it can be read again."""
    lines = [line[1:] for line in render_defaults().splitlines() if line.startswith("#") and line[1:2] not in (" ", "")]
    write(tmp_path, "\n".join(lines))
    shown = load(tmp_path, {})
    assert list(shown.auth.issuers) == ["company"]
    (tmp_path / "again").mkdir()
    again = load(write(tmp_path / "again", render(shown)), {})
    # Everything but where it stands.
    assert msgspec.structs.replace(again, camera_places=shown.camera_places) == shown
    assert load(write(tmp_path / "again", render(Config())), {}) == Config()


def test_the_algorithms_of_the_settings_are_those_of_the_rules() -> None:
    """They are written in two packages, neither of which knows the other."""
    listed, _ = get_args(get_type_hints(IssuerSettings)["algorithms"])
    assert get_args(listed) == OUTSIDE_ALGORITHMS


def test_config_check_reads_key_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `serve` would; keys behind a URL are not asked for."""
    directory = write_config(tmp_path)
    shell = Shell(monkeypatch, capsys, directory)
    file = tmp_path / "partner.pem"
    file.write_bytes(Company().add("a").pem("a"))
    write(directory, f'[auth.issuers.p]\nissuer = "p"\nkey = "{file}"\n[auth.issuers.c]\n{GOOD}')
    assert shell.run("config", "check").code == 0
    file.write_text("junk")
    ran = shell.run("config", "check")
    assert ran.code == 78
    assert "auth.issuers.p.key" in ran.err


def test_the_words_of_an_issuer_stand_in_a_table_of_their_own(tmp_path: Path) -> None:
    """As [auth.issuers.NAME.roles]; what is in force can be read back."""
    text = f'[auth.issuers.company]\n{GOOD}roles_claim = "realm_access.roles"\n[auth.issuers.company.roles]\n'
    write(tmp_path, f'{text}"cam admins" = "admin"\nwatch = "viewer"\n')
    config = load(tmp_path, {})
    ((name, given),) = config.auth.issuers.items()
    assert make_record(name, given).roles == RoleClaim("realm_access.roles", {"cam admins": "admin", "watch": "viewer"})
    shown = tmp_path / "shown"
    shown.mkdir()
    write(shown, render(config))
    assert load(shown, {}).auth.issuers == config.auth.issuers


def test_a_word_that_the_ceiling_makes_less_of_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ceiling is viewer unless it is set: somebody who maps to operator would look for the reason for long."""
    roles = '[auth.issuers.company.roles]\nboss = "admin"\nstaff = "user"\nwatch = "viewer"\n'
    write(tmp_path, f"[auth.issuers.company]\n{GOOD}{roles}")
    told = Shell(monkeypatch, capsys, tmp_path).run("config", "check")
    assert told.code == 0
    assert told.err.splitlines() == [
        f"warning: auth.issuers.company.roles: {word!r} is limited to viewer by auth.issuers.company.ceiling"
        for word in ("boss", "staff")
    ]
