"""The secret that a board asks for: made once for each user, in a file that nobody else can read. Imports errors."""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path

from mlgym.errors import InputError, StorageError

VARIABLE = "MLGYM_BOARD_TOKEN"
"""Where it is given to processes on other machines; wins over the file."""

_FORM = re.compile(r"[A-Za-z0-9_-]{32,512}")


def token_path() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "mlgym" / "board_token"


def board_token(*, make: bool = False) -> str | None:
    """The user's token; None when there is none and none is to be made. Raises `InputError` for an unsafe one."""
    given = os.environ.get(VARIABLE)
    if given is not None:
        return _checked(given.strip(), f"the token in {VARIABLE}")
    path = token_path()
    while True:
        try:
            with path.open() as file:
                status = os.fstat(file.fileno())
                if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
                    raise InputError(f"{path}: others can read or change the token: chmod 600, or delete it")
                return _checked(file.read().strip(), f"the token in {path}")
        except FileNotFoundError:
            if not make:
                return None
        except (OSError, ValueError) as error:
            raise StorageError(f"{path}: the token cannot be read: {error}") from None
        try:
            _make(path)
        except OSError as error:
            raise StorageError(
                f"{path}: a token cannot be made: {error.strerror}; give one in {VARIABLE}, or serve with --no-token"
            ) from None


def _checked(token: str, what: str) -> str:
    if not _FORM.fullmatch(token):
        raise InputError(f"{what} is not safe: expected at least 32 letters, digits, '-' or '_'")
    return token


def _make(path: Path) -> None:
    """Whole or not at all; when two do this at once, both get the same."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(fd)
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
    finally:
        temporary.unlink()
