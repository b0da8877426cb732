"""The secrets that settings and systemd credentials name: read from their files, kept out of Config."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edged.errors import ConfigError

if TYPE_CHECKING:
    from edged.config.model import Config

#: How a setting names a systemd credential instead of a file.
CREDENTIAL = "credential:"
#: A systemd credential whose name begins so is a shared secret.
CREDENTIAL_SECRETS = "edged.shared_secret."
_WRAPPING_KEY = "edged.wrapping_key"
_LARGEST_SECRET = 64 * 1024


def load_shared_secrets(config: Config, credentials_directory: Path | None = None) -> dict[str, str]:
    """The texts of auth.shared_secrets by name, as they stand in their files. Raises ConfigError.

    A file that others may read is refused; a systemd credential is guarded by systemd.
    """
    return {
        name: _read_secret(name, source, credentials_directory) for name, source in config.auth.shared_secrets.items()
    }


def load_wrapping_key(credentials_directory: Path | None = None) -> str | None:
    """The text of the systemd credential that private keys are wrapped by, None without. Raises ConfigError.

    It is no setting: where it is handed over, it is used.
    """
    path = credentials_directory / _WRAPPING_KEY if credentials_directory else None
    return _read_text(f"credential {_WRAPPING_KEY}", path) if path is not None and path.is_file() else None


def _read_secret(name: str, source: str, credentials: Path | None) -> str:
    what = f"shared secret {name!r}"
    if source.startswith(CREDENTIAL):
        wanted = f"edged.{source.removeprefix(CREDENTIAL)}"
        if credentials is None or "/" in wanted or not (credentials / wanted).is_file():
            raise ConfigError(
                f"{what} names the systemd credential {wanted}, which was not given",
                hint=f"LoadCredential={wanted}:FILE in the unit passes it",
                key=f"auth.shared_secrets.{name}",
            )
        return _read_text(what, credentials / wanted)
    path = Path(source)
    if not path.is_absolute():
        raise ConfigError(
            f"{what} is not an absolute path", hint="give the path of a file that contains the secret, not the secret",
            key=f"auth.shared_secrets.{name}",
        )  # fmt: skip
    try:
        mode = path.stat().st_mode
    except OSError as problem:
        make_it = f"make it: (umask 077; openssl rand -base64 32 > {path})"
        is_missing = isinstance(problem, FileNotFoundError)
        raise ConfigError(
            f"{what}: {path}: {problem.strerror}",
            hint=make_it
            if is_missing
            else "chown it to the user that edged runs as, who must also be able to enter its folder",
            file=str(path),
        ) from None
    if mode & 0o077:
        raise ConfigError(
            f"{what}: {path} is readable by others (mode {mode & 0o777:04o})",
            hint=f"chmod 600 {path}",
            file=str(path),
        )
    return _read_text(what, path)


def _read_text(what: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_SECRET + 1)
        text = data.decode("utf-8")
    except OSError as problem:
        raise ConfigError(
            f"{what}: {path}: {problem.strerror}", hint="chown it to the user that edged runs as", file=str(path)
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{what}: {path} is not UTF-8 text", hint="generate one: openssl rand -base64 32") from None
    if not text.strip() or len(data) > _LARGEST_SECRET:
        raise ConfigError(f"{what}: {path} is empty or too large", hint="generate one: openssl rand -base64 32")
    return text
