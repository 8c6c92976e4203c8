"""What every test may use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "example" / "digits_grid"

# Several tests run at a time, each with threads of torch for all cores: those that wait must not keep the others from
# working. Torch reads it when it is loaded, here and in all that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

Run = Callable[..., subprocess.CompletedProcess[str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not any(item.get_closest_marker("gpu") for item in items):
        return
    import torch

    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def no_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A run makes a token where the user's configuration is: not that of whoever runs the tests."""
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("config"))


@pytest.fixture
def python(tmp_path: Path) -> Run:
    """Run the interpreter with arguments, as a user would, in a directory of its own."""

    def run(*arguments: str | Path, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    return run


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A copy of the digits example, cut down to two small experiments of two epochs in one process."""
    folder = tmp_path / "digits"
    folder.mkdir()
    for file in DIGITS.iterdir():
        if file.is_file():
            (folder / file.name).write_text(file.read_text())
    replace(folder / "run_config.yml", "num_epochs: 12", "num_epochs: 2")
    replace(folder / "run_config.yml", "multiprocessing\n  config: {process_count: 2}", "main_process")
    replace(folder / "gs_config.yml", "values: [16, 32, 64]", "values: [256]")
    replace(folder / "gs_config.yml", "values: [1e-4, 1e-3, 1e-2, 1e-1]", "values: [1e-3, 1e-2]")
    return folder


def replace(file: Path, old: str, new: str) -> None:
    """Replace `old`, which must be there exactly once."""
    text = file.read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
    file.write_text(text.replace(old, new))
