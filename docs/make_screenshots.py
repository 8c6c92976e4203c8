"""The pictures of the dashboard in docs/screenshots, in both themes: python -m docs.make_screenshots

They show a grid search that is made up here, the same each time: 48 experiments, some of which still run.
"""

from __future__ import annotations

import fcntl
import io
import json
import math
import random
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page

from tests.ml_board.boards import Board
from tests.ml_board.browser import chromium
from tests.ml_board.page.logs import Script, nest

SCREENSHOTS = Path(__file__).parent / "screenshots"
ID = "2026-11-21--10-26-58"
EPOCHS = 40
GRID = list(product((0.1, 0.03, 0.01, 0.003), (32, 64, 128), ("ADAM", "SGD"), (0, 1)))
STACKTRACE = """Traceback (most recent call last):
  File "mlgym/parts/trainer.py", line 88, in train
    loss = self._loss(self._model(batch.samples), batch.targets)
  File "conv_net.py", line 31, in forward
    return self.head(torch.flatten(x, 1))
RuntimeError: mat1 and mat2 shapes cannot be multiplied (64x576 and 784x10)
"""
PAGES = [
    ("grids", ""),
    ("analysis", "/analysis?sort=-best%3Aval%2Faccuracy"),
    ("sweep", "/sweep"),
    ("compare", "/compare?sel=8,20,32"),
    ("experiment", "/experiment?exp=8"),
    ("failure", "/experiment?exp=45"),
    ("events", "/events"),
    ("settings", "/settings"),
    ("replay", "/analysis?at=3000&smooth=0.5"),
]


def main() -> None:
    SCREENSHOTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, chromium() as browser, Board(Path(folder)) as board:
        now = _write(board.storage)
        lock = (board.storage / ID / "lock").open("w")  # as a run holds it that is alive
        fcntl.flock(lock, fcntl.LOCK_EX)
        for theme in ("light", "dark"):
            context = browser.new_context(
                viewport={"width": 1280, "height": 800},
                color_scheme="dark" if theme == "dark" else "light",
                locale="en-US",
                timezone_id="UTC",
                reduced_motion="reduce",
            )
            page = context.new_page()
            page.clock.set_fixed_time(now / 1000 + 2)
            page.goto(f"{board.url}/#token={board.token}")
            page.get_by_role("navigation", name="pages").wait_for()
            for name, address in PAGES:
                page.goto("about:blank")
                page.goto(f"{board.url}/#/{ID + address if address else ''}")
                _settled(page)
                _save(page.screenshot(), SCREENSHOTS / f"{name}-{theme}.png")
            context.close()


def _settled(page: Page) -> None:
    """Until nothing that the page asks for is missing, and charts are drawn."""
    page.get_by_role("main").wait_for()
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1500)


def _save(picture: bytes, path: Path) -> None:
    """With 256 colours, which is what a page has."""
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


# --- the grid search ----------------------------------------------------------------------------------------


def _write(storage: Path) -> int:
    """When the newest one has come to its last event: unix time in ms."""
    for day, now, count in (
        ("2026-11-19--17-02-11", 1_795_107_731_000, 6),
        ("2026-11-20--09-41-37", 1_795_167_697_000, 12),
    ):
        _search(Script(day, now=now), GRID[:count], done=True).write(storage)
    newest = _search(Script(ID, now=1_795_256_818_000), GRID, done=False)
    newest.write(storage)
    return newest.now


def _search(script: Script, grid: list[tuple[float, int, str, int]], done: bool) -> Script:
    """Four at a time; of the newest one the last eight are not there yet."""
    noise = random.Random(0)
    script.grid(num_experiments=len(grid), run_config=_RUN_CONFIG)
    script.file("run_config.yml", _RUN_CONFIG.encode())
    for number, (lr, batch_size, optimizer, seed) in enumerate(grid):
        swept: dict[str, Any] = {
            "optimizer.config.params.lr": lr,
            "data_loaders.config.batch_size": batch_size,
            "optimizer.config.optimizer_key": optimizer,
            "model.config.seed": seed,
        }
        config = nest({**swept, "model.config.channels": 16, "lr_scheduler.config.gamma": 0.9})
        script.config(number, swept, EPOCHS, config)
        script.file(f"{number}/system_info.json", json.dumps(_SYSTEM).encode())
        script.job(number, "INIT")
    for first in range(0, len(grid), 4):
        _together(script, list(enumerate(grid))[first : first + 4], noise, done)
    if done:
        script.grid("FINISHED")
    return script


def _together(script: Script, some: list[tuple[int, Any]], noise: random.Random, done: bool) -> None:
    waiting = not done and some[0][0] >= len(GRID) - 4
    running = not done and not waiting and some[0][0] >= len(GRID) - 8
    attempts: dict[int, int] = {}
    for number, _ in some:
        if waiting and number != 45:
            continue
        script.job(number, "RUNNING", device=f"cuda:{number % 2}")
        attempts[number] = 1
    for epoch in range(EPOCHS + 1):
        script.wait(2.5)
        for number, values in some:
            if number not in attempts or (running and epoch > 17 + 5 * (number % 4)):
                continue
            if number == 45:
                if epoch == 0:
                    error = STACKTRACE.strip().splitlines()[-1]
                    script.file(f"{number}/output.log", STACKTRACE.encode())
                    script.job(number, "FAILED", error=error, stacktrace=STACKTRACE)
                continue
            if number == 13 and epoch == 12:
                script.job(number, "LOST", error="the worker was killed by signal 9")
                script.job(number, "RUNNING", attempt=2, start_epoch=11, device="cuda:0")
                attempts[number] = 2
            attempt = attempts[number]
            for batch in (100, 250, 400):
                script.progress(number, epoch, batch, 400, attempt=attempt, num_epochs=EPOCHS)
            script.scores(number, epoch, _scores(values, epoch, noise), attempt)
            if epoch and epoch % 10 == 0:
                files = {"model.safetensors": bytes(40_680), "optimizer.safetensors": bytes(82_568)}
                script.checkpoint(number, epoch, {**files, "lr_scheduler.json": b"{}"})
    for number, attempt in attempts.items():
        if number != 45 and not running:
            script.job(number, "DONE", attempt)


def _scores(values: tuple[float, int, str, int], epoch: int, noise: random.Random) -> dict[str, float]:
    """Curves as trainings have them: the better for a learning rate near 0.01, with some noise."""
    lr, batch_size, optimizer, seed = values
    distance = abs(math.log10(lr) + 2)
    top = 0.975 - 0.07 * distance**1.5 - 0.012 * math.log2(batch_size / 32) - (0.03 if optimizer == "SGD" else 0)
    speed = 3.5 + 4 * distance + math.log2(batch_size / 32) + 3 * (optimizer == "SGD") + 0.4 * seed
    reached = 0.1 + (top - 0.1) * (1 - math.exp(-epoch / speed))
    shaken = noise.gauss(0, 0.004 + 0.006 * (lr > 0.05))
    overfit = 0.0015 * max(0, epoch - 22) * (batch_size < 64)
    return {
        "train/accuracy": min(1.0, reached + 0.015 + noise.gauss(0, 0.002)),
        "val/accuracy": min(0.995, reached + shaken),
        "train/cross_entropy_loss": 2.3 * (1 - reached) + 0.02,
        "val/cross_entropy_loss": 2.3 * (1 - reached) + 0.05 - 2 * shaken + overfit,
    }


_RUN_CONFIG = """run_configuration:
  type: train
  config: {num_epochs: 40, gs_config_path: ./gs_config.yml, seed: 0}

environment:
  type: multiprocessing
  config: {process_count: 4, computation_device_ids: [0, 1]}
"""
_SYSTEM = {
    "host": "node-1",
    "python": "3.11.7",
    "packages": {"torch": "2.13.0", "mlgym": "0.1.0"},
    "git": {"commit": "5b0c1a77", "dirty": False},
    "cpu": {"cores": 32},
    "gpus": [{"name": "NVIDIA H200", "memory": 150_754_820_096}],
}

if __name__ == "__main__":
    main()
