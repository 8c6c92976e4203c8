"""Logs for tests of the page: written line by line as spools are, with a clock that stands still between lines, and
numbered by a real hub."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from mlgym.plan.config import read
from mlgym.plan.sweep import expand
from mlgym.record.checkpoint_folder import Manifest
from mlgym.record.events import (
    EVENT_TYPES,
    CheckpointEvent,
    CheckpointFile,
    EvaluationResult,
    ExperimentConfig,
    ExperimentStatus,
    GridSearch,
    JobState,
    JobStatus,
    LossScore,
    MetricScore,
    Payload,
    number,
    seal,
)
from mlgym.record.hub import Hub
from tests.conftest import DIGITS

START = 1_790_000_000_000
"""Unix time in ms at which logs begin, unless told otherwise: in September 2026."""


class Script:
    """What one process has to say about a grid search. `now`, unix time in ms, is moved by who writes it."""

    def __init__(self, grid_search_id: str, source: str = "script", now: int = START) -> None:
        self.id = grid_search_id
        self.now = now
        self._source = source
        self._n = 0
        self._lines: list[bytes] = []
        self._files: dict[str, bytes] = {}

    def put(self, payload: Payload, attempt: int = 1) -> None:
        self.raw(EVENT_TYPES[type(payload)].decode(), msgspec.to_builtins(payload), attempt)

    def raw(self, event_type: str, payload: Any, attempt: int = 1) -> None:
        """An event of any type."""
        self._n += 1
        event = {
            "event_type": event_type,
            "creation_ts": self.now,
            "source": self._source,
            "n": self._n,
            "attempt": attempt,
            "payload": payload,
        }
        body = json.dumps(event, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        self._lines.append(seal(body.encode(errors="surrogatepass")[:-1]))

    def wait(self, seconds: float) -> None:
        self.now += round(1000 * seconds)

    def drain(self) -> bytes:
        """The lines since it was last asked, to be delivered."""
        lines, self._lines = self._lines, []
        return b"".join(lines)

    def file(self, path: str, content: bytes) -> None:
        """One that lies beside the log, as a run has put it there."""
        self._files[path] = content

    def write(self, storage: Path) -> None:
        """Put the lines into the log in an event storage that nobody else writes, and the files beside it."""
        folder = storage / self.id
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in self._files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        hub = Hub(folder / "event_storage.log")
        try:
            answer = hub.accept(self.drain(), self.id)
        finally:
            hub.close()
        assert not answer.rejected, answer
        assert not answer.expected, answer

    # --- events, in short ---

    def grid(self, status: Any = "STARTED", num_experiments: int | None = None, **more: Any) -> None:
        self.put(GridSearch(grid_search_id=self.id, status=status, num_experiments=num_experiments, **more))

    def config(self, experiment: int, swept: Mapping[str, Any], num_epochs: int = 5, config: Any = None) -> None:
        """Announce an experiment. Without `config` it consists of what was swept."""
        nested = nest(swept) if config is None else config
        raw = msgspec.Raw(json.dumps(nested).encode())
        self.file(f"{experiment}/experiment_config.json", bytes(raw))
        digest = hashlib.sha256(bytes(raw)).hexdigest()[:16]
        payload = ExperimentConfig(
            grid_search_id=self.id,
            experiment_id=experiment,
            job_id=f"{experiment}-1",
            config=raw,
            config_hash=digest,
            swept=dict(swept),
            num_epochs=num_epochs,
        )
        self.raw("experiment_config", json.loads(msgspec.json.encode(payload)))

    def job(self, experiment: int, status: JobState, attempt: int = 1, **more: Any) -> None:
        if status == "RUNNING":
            more = {"starting_time": self.now, "device": "cpu", "host": "node-1", **more}
        elif status not in ("INIT", "LOST"):
            more = {"finishing_time": self.now, **more}
        job_id = f"{experiment}-{attempt}"
        self.put(
            JobStatus(grid_search_id=self.id, experiment_id=experiment, job_id=job_id, status=status, **more), attempt
        )

    def progress(
        self,
        experiment: int,
        epoch: int,
        batch: int = 0,
        num_batches: int = 40,
        split: str = "train",
        attempt: int = 1,
        num_epochs: int = 5,
    ) -> None:
        payload = ExperimentStatus(
            grid_search_id=self.id,
            experiment_id=experiment,
            status="train" if split == "train" else "evaluation",
            num_epochs=num_epochs,
            current_epoch=epoch,
            splits=["train", "val"],
            current_split=split,
            num_batches=num_batches,
            current_batch=batch,
        )
        self.put(payload, attempt)

    def scores(self, experiment: int, epoch: int, scores: Mapping[str, float], attempt: int = 1) -> None:
        """`split/tag` -> score; a tag with `loss` in it is a loss."""
        parts = [(*key.partition("/")[::2], number(value)) for key, value in scores.items()]
        payload = EvaluationResult(
            grid_search_id=self.id,
            experiment_id=experiment,
            epoch=epoch,
            metric_scores=[MetricScore(tag, split, value) for split, tag, value in parts if "loss" not in tag],
            loss_scores=[LossScore(tag, split, value) for split, tag, value in parts if "loss" in tag],
        )
        self.put(payload, attempt)

    def checkpoint(
        self, experiment: int, epoch: int, files: Mapping[str, bytes] | None = None, action: Any = "SAVED"
    ) -> None:
        described = described_files(files or {}) if action == "SAVED" else []
        if files:
            manifest = Manifest(epoch=epoch, batch=0, files=described, delete=[]).sealed()
            for name, content in [*files.items(), ("manifest.json", manifest)]:
                self.file(f"{experiment}/{epoch}/{name}", content)
        payload = CheckpointEvent(
            grid_search_id=self.id, experiment_id=experiment, epoch=epoch, action=action, files=described
        )
        self.put(payload)


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a.b": 1}` as `{"a": {"b": 1}}`."""
    found: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, name = path.split(".")
        inner = found
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[name] = value
    return found


def described_files(files: Mapping[str, bytes]) -> list[CheckpointFile]:
    return [CheckpointFile(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()]


# --- a grid search with something of everything ---

LRS = (0.001, 0.01, 0.1)
OPTIMIZERS = ("adam", "sgd")
SEEDS = (0, 1)
EPOCHS = 5
ERROR = "ValueError: the loss is not finite"
RUN_CONFIG = "run_configuration:\n  type: train\n  config: {num_epochs: 5}  # as it was written\n"
GRID_CONFIG = "optimizer:\n  config: {lr: {sweep: absolute, values: [0.001, 0.01, 0.1]}}\n"
STACKTRACE = f'Traceback (most recent call last):\n  File "trainer.py", line 41, in step\n{ERROR}'


def accuracy(experiment: int, epoch: int) -> float:
    """No two are alike, and which experiment is best changes from epoch to epoch."""
    return 0.5 + 0.4 * math.sin(experiment * 1.7 + epoch) + experiment / 1000


def loss(experiment: int, epoch: int) -> float:
    return 2.5 / (1 + epoch) + 0.1 * math.cos(experiment * 2.3) + epoch * experiment / 97


def scores(experiment: int, epoch: int) -> dict[str, float]:
    return {
        "train/accuracy": accuracy(experiment, epoch) + 0.05,
        "val/accuracy": accuracy(experiment, epoch),
        "train/cross_entropy_loss": loss(experiment, epoch) - 0.05,
        "val/cross_entropy_loss": loss(experiment, epoch),
    }


def swept(experiment: int) -> dict[str, Any]:
    seed, optimizer, lr = experiment % 2, experiment // 2 % 2, experiment // 4
    return {"optimizer.params.lr": LRS[lr], "optimizer.optimizer_key": OPTIMIZERS[optimizer], "model.seed": SEEDS[seed]}


def configuration(experiment: int) -> dict[str, Any]:
    """What an experiment consists of, with values that YAML could take for others."""
    found = nest(swept(experiment))
    found["data"] = {
        "splits": ["train", "val"],
        "norway": "no",
        "version": "1.10",
        "nothing": None,
        "größe": 1e-7,
        "empty": {},
    }
    return found


def weights(experiment: int, epoch: int) -> bytes:
    """Of a model: every byte there is."""
    return bytes((one * (experiment + 1) + epoch) % 256 for one in range(5000))


def sweep(grid_search_id: str) -> Script:
    """12 experiments: 0 to 8 done, 9 failed, 10 lost and running again, 11 waiting. 10 and 11 have not all scores."""
    script = Script(grid_search_id)
    script.grid(num_experiments=12, run_config=RUN_CONFIG, grid_search_config=GRID_CONFIG)
    script.file("run_config.yml", RUN_CONFIG.encode())
    script.file("grid_search_config.yml", GRID_CONFIG.encode())
    for experiment in range(12):
        script.config(experiment, swept(experiment), EPOCHS, configuration(experiment))
        script.file(f"{experiment}/system_info.json", b'{"host": "node-1", "cpu": {"cores": 8}}')
        script.file(f"{experiment}/output.log", b"epoch 1\nepoch 2\n")
        script.job(experiment, "INIT")
    for experiment in range(11):
        script.wait(1)
        script.job(experiment, "RUNNING")
        last = {9: 2, 10: 3}.get(experiment, EPOCHS)
        for epoch in range(last + 1):
            script.wait(0.5)
            if epoch:
                script.progress(experiment, epoch, 40)
            script.scores(experiment, epoch, scores(experiment, epoch))
            if epoch and experiment < 3:
                script.checkpoint(
                    experiment, epoch, {"model.safetensors": weights(experiment, epoch), "lr_scheduler.json": b"{}"}
                )
        if experiment < 9:
            script.job(experiment, "DONE")
    script.job(9, "FAILED", error=ERROR, stacktrace=STACKTRACE)
    script.job(10, "LOST", error="the worker was killed by signal 9")
    script.job(10, "INIT", attempt=2, start_epoch=2)
    script.job(10, "RUNNING", attempt=2, start_epoch=2, starting_time=START + 60_000)
    script.progress(10, 3, 20, attempt=2)
    return script


HOSTILE_NAME = "<img src=x onerror=alert(1)> & \u202e]] größe"


def components(grid_search_id: str) -> Script:
    """Experiments 0 and 1 of the digits example; in 2 and 3 of them a component is missing, and others are not used."""
    script = Script(grid_search_id)
    cells = expand(read(DIGITS / "gs_config.yml").value)
    script.grid(num_experiments=4)
    for experiment in range(4):
        config = dict(cells[experiment].config)
        if experiment > 1:
            del config["data_collator"]
            config[HOSTILE_NAME] = {
                "component_type_key": "<b>",
                "variant_key": "</svg><script>",
                "config": {"<i>": 1.0},
            }
            config["watcher"] = {**config["eval_component"], "config": {}}
        swept = {".".join(map(str, path)): value for path, value in cells[experiment].swept.items()}
        script.config(experiment, swept, EPOCHS, config)
        script.job(experiment, "RUNNING")
    return script
