"""Real Ray clusters for tests: several nodes on this machine, in a process of their own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlgym.record.journal import is_held
from tests.conftest import ROOT
from tests.ml_board.boards import wait_until


class Nodes:
    """A head without CPUs and a node for each number of `cpus`. The driver of a grid needs `environment`."""

    def __init__(self, cpus: Sequence[int], without: Path | None = None) -> None:
        """`without`: a folder that the nodes see empty, as on machines that share no disk with the driver."""
        self._folder = Path(tempfile.mkdtemp(prefix="mlgym-", dir="/tmp"))
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_worker_niceness": "0",  # other tests run at the same time
        }
        self._stderr = (self._folder / "stderr").open("w+")
        self._process = subprocess.Popen(
            [*hidden(without), sys.executable, "-m", "tests.engine.clusters", str(self._folder), *map(str, cpus)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(self._folder), **self.environment},
            start_new_session=True,
        )
        answer = self._answer()
        self.address: str = answer["address"]
        self.nodes: list[str] = answer["nodes"]

    def _answer(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, (self._folder / "stderr").read_text()
        return json.loads(line)

    def _ask(self, *words: str) -> Any:
        assert self._process.stdin
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def remove(self, node: str) -> None:
        """Kill a node, as a machine goes down: its jobs die a moment after it."""
        self._ask("remove", node)
        wait_until(lambda: node not in self.busy(), "the end of its jobs")
        self.nodes.remove(node)

    def add(self, cpus: int) -> str:
        """A machine joins."""
        node: str = self._ask("add", str(cpus))
        self.nodes.append(node)
        return node

    def jobs(self, kind: bytes = b"job_task") -> list[int]:
        """The pids of running jobs, on whichever node."""
        found, parents = [], [self._process.pid]
        while parents:
            for path in Path(f"/proc/{parents.pop()}/task").glob("*/children"):
                with suppress(OSError):
                    parents += map(int, path.read_text().split())
            with suppress(OSError):
                if parents and Path(f"/proc/{parents[-1]}/cmdline").read_bytes().startswith(b"ray::" + kind):
                    found.append(parents[-1])
        return found

    def busy(self) -> list[str]:
        """The nodes on which a job is running that has begun its spool."""
        return [spool.parent.name for spool in self._folder.glob("mlgym-*/*/*/*.jsonl") if is_held(spool)]

    def stopping(self) -> set[str]:
        """The nodes whose jobs have been told to stop."""
        return {file.parent.name for file in self._folder.glob("mlgym-*/*/*/stop")}

    def config(self, **config: Any) -> dict[str, Any]:
        """`environment` of a run config; the nodes see the current directory, as on a shared disk."""
        base: dict[str, Any] = {"address": self.address, "runtime_env": {"working_dir": None}}
        return {"type": "ray", "config": {**base, **config}}

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()
        self._stderr.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def hidden(folder: Path | None) -> list[str]:
    """The beginning of a command that sees another, empty folder in the place of `folder`."""
    mount = 'mount -t tmpfs none "$0" && exec "$@"'
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, str(folder)] if folder else []


def main() -> None:
    from ray.cluster_utils import Cluster

    folder, *cpus = sys.argv[1:]
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, "temp_dir": f"{folder}/ray"}
    )
    nodes = {}
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def add(number: str) -> str:
        node = cluster.add_node(num_cpus=int(number), object_store_memory=80 << 20)
        nodes[node.node_id] = node
        return str(node.node_id)

    def answer(value: Any) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    for number in cpus:
        add(number)
    answer({"address": cluster.address, "nodes": list(nodes)})
    for line in sys.stdin:
        what, argument = line.split()
        if what == "add":
            answer(add(argument))
        else:
            cluster.remove_node(nodes.pop(argument), allow_graceful=False)
            answer(None)
    cluster.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
