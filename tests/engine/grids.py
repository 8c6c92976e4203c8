"""Tiny grids for tests of executors: written to a folder, run as real processes, and searched for what they left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlgym.record.events import Event, JobStatus, JobStatusEvent, decode_lines
from mlgym.record.fold import State
from mlgym.record.journal import read_blocks
from mlgym.record.log import read_state
from tests.conftest import ROOT

ENDS = ("DONE", "FAILED", "STOPPED")

RUN = """
from mlgym import run


def blueprint(registry):
    import parts  # torch takes two seconds: only those import it who train

    parts.blueprint(registry)


if __name__ == "__main__":
    run(blueprint)
"""


@dataclass
class Grid:
    """A grid in a folder of its own. Its processes, however distant, carry a mark in their environment."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    logging: dict[str, Any] = field(default_factory=lambda: {"board": False})
    """No board, unless a test is about it: half a second for each run."""
    one_script: bool = False
    """Everything is in run.py, as many users have it. Otherwise its parts are in a module, and it imports no torch."""
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    shared_memory: set[Path] = field(default_factory=lambda: set(Path("/dev/shm").iterdir()))

    def __post_init__(self) -> None:
        (self.folder / "tmp").mkdir()

    def write(
        self, environment: dict[str, Any], model: dict[str, Any], epochs: int = 1, workers: int = 0, **train: Any
    ) -> None:
        """`model` goes to the constructor of `Net`; its lists are swept."""
        definition = {
            key: {"sweep": "absolute", "values": value} if isinstance(value, list) else value
            for key, value in model.items()
        }
        self.train("misbehaving.py", environment, config(definition, workers), num_epochs=epochs, **train)

    def train(self, script: str, environment: dict[str, Any], gs_config: dict[str, Any], **train: Any) -> None:
        """Write the files of a training; `script` lies beside this file."""
        text = (ROOT / "tests/engine" / script).read_text()
        (self.folder / "run.py").write_text(text if self.one_script else RUN)
        (self.folder / "parts.py").write_text(text)
        (self.folder / "gs_config.yml").write_text(json.dumps(gs_config))
        self._run_config("train", environment, {"gs_config_path": "gs_config.yml", **train})

    def warm_start(self, environment: dict[str, Any], **warmstart: Any) -> None:
        """Make the run config that of a warm start of the only grid search."""
        self._run_config("warmstart", environment, {"gridsearch_id": self.root.name, **warmstart})

    def _run_config(self, type_: str, environment: dict[str, Any], values: dict[str, Any]) -> None:
        what = {"run_configuration": {"type": type_, "config": values}, "environment": environment}
        run_config = {**what, "logging": self.logging}
        (self.folder / "run_config.yml").write_text(json.dumps(run_config))

    def command(self, *arguments: str) -> dict[str, Any]:
        """What `subprocess` needs to run the grid."""
        return {
            "args": [sys.executable, "run.py", *arguments, "--config_path", "run_config.yml"],
            "cwd": self.folder,
            "env": {
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "MLGYM_TEST_MARK": self.mark,
                "TMPDIR": f"{self.folder}/tmp",
                **self.environment,
            },
            "text": True,
        }

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(**self.command(*arguments), capture_output=True, timeout=280, check=False)

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(**self.command(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    @property
    def root(self) -> Path:
        """The directory of the only grid search."""
        (root,) = (self.folder / "event_storage").iterdir()
        return root

    @property
    def state(self) -> State:
        return read_state(self.root / "event_storage.log")

    @property
    def events(self) -> list[Event]:
        return [e for block in read_blocks(self.root / "event_storage.log") for e in decode_lines(block.lines)]

    def statuses(self) -> list[JobStatus]:
        return [event.payload for event in self.events if isinstance(event, JobStatusEvent)]

    def output(self, experiment_id: int) -> str:
        return (self.root / str(experiment_id) / "output.log").read_text(errors="replace")

    def processes(self) -> dict[int, str]:
        """Every living process of this grid, with its command line."""
        found = {}
        for path in Path("/proc").iterdir():
            if path.name.isdigit() and int(path.name) != os.getpid():
                try:
                    if self.mark.encode() in (path / "environ").read_bytes():
                        found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except OSError:
                    continue
        return found

    def server(self) -> int | None:
        """The pid of the fork server, once it is one. Jobs have its command line, but the server is the run's child."""
        lines = self.processes()
        like = [pid for pid, line in lines.items() if "fork_service" in line]
        return next((pid for pid in like if "fork_service" not in lines.get(parent(pid), "fork_service")), None)

    def jobs(self) -> list[int]:
        """The pids of the running jobs: what the fork server has forked."""
        server = self.server()
        try:
            return [int(pid) for pid in Path(f"/proc/{server}/task/{server}/children").read_text().split()]
        except OSError:
            return []

    def wait_for(self, what: str, at_least: int = 1, seconds: float = 120) -> None:
        """Until there are so many events of a status."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            logs = list(self.folder.glob("event_storage/*/event_storage.log"))
            if logs and logs[0].read_text().count(f'"status":"{what}"') >= at_least:
                return
            time.sleep(0.02)
        raise AssertionError(f"no {what} in {seconds} s")

    def gone(self, seconds: float = 5) -> None:
        """Everything is gone: processes, temporary files, shared memory (which other tests may be using, too)."""
        end = time.monotonic() + seconds
        shared = {p for kind in ("torch_*", "sem.mlgym-*") for p in Path("/dev/shm").glob(kind)} - self.shared_memory
        while True:
            shared &= set(Path("/dev/shm").iterdir())
            files = [path for path in (self.folder / "tmp").iterdir() if not path.name.startswith("torchinductor_")]
            left = [*self.processes().items(), *files, *shared]  # torch's cache of compiled code is meant to stay
            if not left or time.monotonic() > end:
                break
            time.sleep(0.02)
        assert not left, left

    def kill_all(self) -> None:
        """For the end of a test that has failed."""
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def ended_once(self) -> Counter[str]:
        """Assert that every experiment ended exactly once; the number of experiments for each end."""
        ends = [(s.experiment_id, s.job_id, s.status) for s in self.statuses() if s.status in ENDS]
        assert len({job_id for _, job_id, _ in ends}) == len(ends), "a job ended twice"
        final = {experiment_id: status for experiment_id, _, status in ends}
        waiting = ("INIT", "LOST")
        assert final == {e.experiment_id: e.status for e in self.state.experiments.values() if e.status not in waiting}
        assert not list((self.root / "spool").iterdir())
        assert not list(self.root.rglob(".*"))
        return Counter(final.values())


def parent(pid: int) -> int:
    """Its parent's pid; 0 once it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def config(definition: dict[str, Any], workers: int) -> dict[str, Any]:
    """A gs_config over the data set `tiny` and the model `net`."""

    def component(type_key: str, config: Any = None, variant: str = "DEFAULT", **requirements: Any) -> dict[str, Any]:
        named = [
            {"name": name, "component_name": target[0], "subscription": target[1]}
            if isinstance(target, tuple)
            else {"name": name, "component_name": target}
            for name, target in requirements.items()
        ]
        return {"component_type_key": type_key, "variant_key": variant, "config": config or {}, "requirements": named}

    loss = {
        "tag": "loss",
        "key": "CrossEntropyLoss",
        "prediction_subscription_key": "logits",
        "target_subscription_key": "target_key",
    }
    return {
        "repository": component("DATASET_REPOSITORY"),
        "iterators": component(
            "DATASET_ITERATORS",
            {"dataset_identifier": "tiny", "split_configs": [{"split": "train"}]},
            repository="repository",
        ),
        "collator": component("DATA_COLLATOR", {"collator_params": {"target_publication_key": "target_key"}}),
        "loaders": component(
            "DATA_LOADER",
            {"batch_size": 16, "num_workers": workers},
            iterators="iterators",
            data_collator="collator",
        ),
        "model_registry": component("MODEL_REGISTRY"),
        "model": component(
            "MODEL",
            {
                "model_definition": definition,
                "prediction_publication_keys": {"prediction_publication_key": "logits"},
            },
            model_registry=("model_registry", "net"),
        ),
        "optimizer": component("OPTIMIZER", {"optimizer_key": "SGD", "params": {"lr": 0.1}}),
        "train_component": component("TRAIN_COMPONENT", {"loss_fun_config": loss}),
        "trainer": component(
            "TRAINER", train_component="train_component", model="model", data_loaders=("loaders", "train")
        ),
        "eval_component": component(
            "EVAL_COMPONENT",
            {"loss_funs_config": [loss], "metrics_config": [], "post_processors_config": []},
            model="model",
            data_loaders="loaders",
        ),
        "evaluator": component("EVALUATOR", eval_component="eval_component"),
    }
