"""Small files beside the log. Imports errors only."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from mlgym.errors import StorageError


def write_once(path: Path, content: bytes) -> None:
    """Write a file that is either whole or absent; one that exists is left as it is. Raises `StorageError`.

    All that is written so is in the log as well, so it need not survive a power cut.
    """
    if path.exists():
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.rename(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise StorageError(f"{path}: cannot be written: {error.strerror}") from None
