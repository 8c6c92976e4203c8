"""The commands as a user runs them: real processes, real files, real signals."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mlgym.record.events import decode_lines
from mlgym.record.log import read_state
from tests.conftest import ROOT, Run, replace
from tests.record.cards import announced, told

IDS = re.compile(r"\d{4}-\d\d-\d\d--\d\d-\d\d-\d\d(-\d+)?$")


def grid_searches(folder: Path) -> list[Path]:
    storage = folder / "event_storage"
    return sorted(storage.iterdir()) if storage.exists() else []


def test_a_grid_from_start_to_end(digits: Path, python: Run) -> None:
    ended = python("run.py", "--config_path", "run_config.yml", cwd=digits)
    assert ended.returncode == 0, ended.stderr
    assert "[2/2] experiment 1 DONE after 2 epochs (batch_size=256, lr=0.01)" in ended.stderr
    assert "best val/accuracy (max)" in ended.stdout
    (root,) = grid_searches(digits)
    assert IDS.match(root.name)
    assert ended.stdout.strip().endswith(f"log: event_storage/{root.name}/event_storage.log")

    assert {path.name for path in root.iterdir()} == {
        *("0", "1", "lock", "spool", "event_storage.log", "grid_search_config.yml", "run_config.yml"),
    }
    assert not any((root / "spool").iterdir())
    assert (root / "grid_search_config.yml").read_text() == (digits / "gs_config.yml").read_text()
    info = json.loads((root / "0" / "system_info.json").read_text())
    assert info["packages"]["torch"]
    assert info["command_line"] == ["run.py", "--config_path", "run_config.yml"]

    lines = (root / "event_storage.log").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    kinds = [event["event_type"] for event in events]
    assert kinds.count("experiment_config") == 2
    assert kinds.count("system_info") == 1
    assert kinds.count("evaluation_result") == 6
    assert [event["payload"]["status"] for event in events if event["event_type"] == "grid_search"] == [
        "STARTED",
        "FINISHED",
    ]

    # The table comes from the log alone.
    status = python("-m", "mlgym", "status", root.name, cwd=digits)
    assert status.stdout == ended.stdout
    as_json = json.loads(python("-m", "mlgym", "status", root.name, "--json", cwd=digits).stdout)
    assert [row["status"] for row in as_json["rows"]] == ["DONE", "DONE"]
    by_loss = python("-m", "mlgym", "status", root.name, "--metric", "test/cross_entropy_loss", cwd=digits)
    assert "best test/cross_entropy_loss (min)" in by_loss.stdout


def scores(root: Path) -> list[object]:
    return [(e.scores, e.config_hash) for e in read_state(root / "event_storage.log").experiments.values()]


def test_two_launches_give_the_same_numbers_under_different_ids(digits: Path) -> None:
    command = [sys.executable, "run.py", "--config_path", "run_config.yml"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen(command, cwd=digits, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in "ab"
    ]
    assert [process.wait(300) for process in both] == [0, 0]
    one, other = grid_searches(digits)
    assert one.name != other.name
    assert scores(one) == scores(other)


def test_ids_differ_within_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlgym.engine.run import _first_free

    assert [_first_free(tmp_path, "2026-01-01--00-00-00").grid_search_id for _ in range(3)] == [
        *("2026-01-01--00-00-00", "2026-01-01--00-00-00-2", "2026-01-01--00-00-00-3"),
    ]


def test_plan_and_check(digits: Path, python: Run) -> None:
    planned = python("run.py", "plan", "--config_path", "run_config.yml", cwd=digits)
    assert planned.stdout.splitlines()[2].split() == ["0", "256", "0.001"]
    assert planned.stdout.endswith("2 experiments of 2 epochs\n")
    as_json = json.loads(python("-m", "mlgym", "plan", "--json", "--config_path", "run_config.yml", cwd=digits).stdout)
    assert as_json[1]["swept"] == {"data_loaders.config.batch_size": 256, "optimizer.config.params.lr": 0.01}
    checked = python("run.py", "check", "--config_path", "run_config.yml", cwd=digits)
    assert (checked.returncode, checked.stdout) == (0, "run_config.yml: 2 experiments, nothing wrong found\n")
    assert grid_searches(digits) == []


def test_no_run_py_is_needed_for_dotted_paths(digits: Path, python: Run) -> None:
    replace(digits / "gs_config.yml", "subscription: conv_net", "subscription: 'conv_net:ConvNet'")
    ended = python("-m", "mlgym", "check", "--config_path", "digits/run_config.yml", cwd=digits.parent)
    assert ended.returncode == 2
    assert "cannot import 'conv_net:ConvNet'" in ended.stderr
    assert python("-m", "mlgym", "check", "--config_path", "run_config.yml", cwd=digits).returncode == 0


def test_graph(digits: Path, python: Run) -> None:
    """As its file's name ends, or as it is told; a table otherwise."""
    shown = python("-m", "mlgym", "graph", "gs_config.yml", cwd=digits)
    assert (shown.returncode, shown.stderr) == (0, "")
    (row,) = [line.split("  ") for line in shown.stdout.splitlines() if line.startswith("optimizer ")]
    assert row[-1] == "config.params.lr: sweep of 2"
    drawn = python("-m", "mlgym", "graph", "gs_config.yml", "-o", "graph.svg", cwd=digits)
    assert (drawn.returncode, drawn.stdout, drawn.stderr) == (0, "", "")
    texts = [element.text for element in ElementTree.parse(digits / "graph.svg").iter() if element.tag.endswith("text")]
    assert {"splitted_dataset_iterators", "lr: sweep of 2", "train, val, test"} <= set(texts)
    found = json.loads(python("-m", "mlgym", "graph", "gs_config.yml", "--format", "json", cwd=digits).stdout)
    assert {node["name"]: node["swept"] for node in found["nodes"]}["optimizer"] == {"config.params.lr": {"sweep": 2}}
    named = python("-m", "mlgym", "graph", "gs_config.yml", "-o", "graph", "--format", "mmd", cwd=digits)
    assert named.returncode == 0, named.stderr
    assert (digits / "graph").read_text().startswith("flowchart LR\n")


@pytest.mark.parametrize(
    ("old", "new", "arguments", "words"),
    [
        ("", "", ["gs_conf.yml"], r"gs_conf\.yml: no such file; did you mean 'gs_config\.yml'\?"),
        ("", "", ["run_config.yml"], r"run_config\.yml: this is a run config; expected the grid search config that it"),
        (
            "",
            "",
            ["gs_config.yml", "-o", "x.png"],
            r"x\.png: expected a file name ending in one of \.svg, \.mmd, \.json",
        ),
        ("", "", ["gs_config.yml", "-o", "no/x.svg"], r"no/x\.svg: cannot be written: No such file or directory"),
        (
            "component_name: train_component}",
            "component_name: trainer}",
            ["gs_config.yml"],
            r"gs_config\.yml:\d+:3: trainer\.requirements: the requirements go in a circle: trainer -> trainer",
        ),
        (
            "component_name: train_component}",
            "component_name: train_componen}",
            ["gs_config.yml"],
            r"gs_config\.yml:\d+:31: .*'train_componen', which does not exist; did you mean 'train_component'\?",
        ),
    ],
)
def test_graph_of_bad_input(digits: Path, python: Run, old: str, new: str, arguments: list[str], words: str) -> None:
    if old:
        replace(digits / "gs_config.yml", old, new)
    ended = python("-m", "mlgym", "graph", *arguments, cwd=digits)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.fullmatch(f"mlgym: {words}.*\n", ended.stderr), ended.stderr


# --- model cards ---


def test_card(tmp_path: Path, python: Run) -> None:
    """As its file's name ends, or as it is told; Markdown of the best experiment otherwise."""
    told(announced("g")).write(tmp_path / "event_storage")
    shown = python("-m", "mlgym", "card", "g")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "# Net\n" in shown.stdout
    for name, words in (("a.html", "<!doctype html>"), ("a.md", "license: "), ("a.json", '"model_details": {')):
        ended = python("-m", "mlgym", "card", "g", "0", "-o", name)
        assert (ended.returncode, ended.stdout) == (0, f"{name}: the model card of experiment 0\n")
        assert words in (tmp_path / name).read_text()
    (tmp_path / "info.yml").write_text("model_info: {model_name: Another}\n")
    stated = python("-m", "mlgym", "card", "g", "0", "--format", "json", "--model_info", "info.yml")
    assert json.loads(stated.stdout)["model_details"]["name"] == "Another"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["h"], r"there is no grid search 'h' in event_storage; .*g"),
        (["g", "1"], r"there is no experiment 1 in g; there is: 0"),
        (["g", "one"], r"expected the number of an experiment, got 'one'; there is: 0"),
        (["g"], r"no experiment has a score yet, so none is the best; name one"),
        (
            ["g", "0", "-o", "card.pdf"],
            r"card\.pdf: expected a file name ending in one of \.html, \.md, \.json, or --f",
        ),
        (["g", "0", "-o", "no/card.md"], r"no/card\.md: cannot be written: No such file or directory"),
        (["g", "0", "--model_info", "list.yml"], r"list\.yml: expected keys with texts, such as"),
    ],
)
def test_card_of_bad_input(tmp_path: Path, python: Run, arguments: list[str], words: str) -> None:
    announced("g").write(tmp_path / "event_storage")
    (tmp_path / "list.yml").write_text("- a\n")
    ended = python("-m", "mlgym", "card", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.fullmatch(f"mlgym: {words}.*\n", ended.stderr), ended.stderr


# --- light commands -----------------------------------------------------------------------------------------

HEAVY = ("torch", "sklearn", "torchvision", "torchmetrics", "numpy", "dependency_injector")


@pytest.mark.parametrize("code", ["import mlgym", "import mlgym.record", "import ml_board", "import mlgym.record.hub"])
def test_imports_are_light(code: str, python: Run) -> None:
    ended = python("-c", f"{code}; import sys; print([name for name in {HEAVY} if name in sys.modules])")
    assert ended.stdout == "[]\n", ended.stderr


def test_a_worker_imports_what_it_needs(python: Run) -> None:
    """Of torch's company, only what an experiment asks for; of dependency-injector, not its web frameworks."""
    needless = (
        "fastapi",
        "flask",
        "werkzeug",
        "mlflow",
        "ray",
        "accelerate",
        "sklearn",
        "torchmetrics",
        "torch._dynamo",
    )
    code = f"import mlgym.engine.worker, sys; print([name for name in {needless} if name in sys.modules])"
    ended = python("-c", code)
    assert ended.stdout == "[]\n", ended.stderr


def test_plan_and_status_import_no_torch(digits: Path, python: Run) -> None:
    for arguments in (
        ["plan", "--config_path", "run_config.yml"],
        ["graph", "gs_config.yml"],
        ["status", "x"],
        ["card", "x"],
    ):
        code = (
            f"import sys; from mlgym.cli import main; main({arguments}); "
            f"sys.exit(str([name for name in {HEAVY} if name in sys.modules]))"
        )
        assert python("-c", code, cwd=digits).stderr.splitlines()[-1] == "[]"


# --- bad input ----------------------------------------------------------------------------------------------

GS, RUN = "gs_config.yml", "run_config.yml"
BAD = [
    (
        RUN,
        "gs_config_path: ./gs_config.yml",
        "gs_config_path: ./gs.yml",
        r"run_config\.yml:5:5: .*gs\.yml: no such file; did you",
    ),
    (RUN, "num_epochs: 2", "num_epochs: two", r"run_config\.yml:4:5: .*expected int, got str 'two'"),
    (RUN, "seed: 0", "sed: 0", r"run_config\.yml:6:5: .*unknown key 'sed'; did you mean 'seed'"),
    (RUN, "type: main_process", "type: main_proces", "main_process"),
    (RUN, "  type: main_process", "  type: main_process\n  config: {computation_device_id: 99}", "no CUDA device 99"),
    (
        GS,
        "config:\n    optimizer_key",
        "config: [\n    optimizer_key",
        r"gs_config\.yml:\d+:\d+: this is not valid YAML",
    ),
    (
        GS,
        "sweep: absolute, values: [256]",
        "sweep: absolut, values: [256]",
        r"gs_config\.yml:\d+:\d+: .*did you mean 'absolute'",
    ),
    (GS, "component_type_key: OPTIMIZER", "component_type_key: OPTIMISER", "did you mean 'OPTIMIZER'"),
    (
        GS,
        "batch_size: {",
        "batchsize: {",
        r"data_loaders\.config\.batchsize: unknown key 'batchsize'; did you mean 'batch_size'",
    ),
    (GS, "component_name: train_component}", "component_name: train_componen}", "did you mean 'train_component'"),
    (GS, "subscription: conv_net", "subscription: convnet", "unknown model 'convnet'; did you mean 'conv_net'"),
    (GS, "subscription: [train, val, test]", "subscription: [train, vall]", "has no 'vall'; did you mean 'val'"),
    (GS, "dataset_identifier: digits", "dataset_identifier: digit", "unknown data set 'digit'; did you mean 'digits'"),
    (GS, "train: 0.7, val: 0.15", "train: 0.7, val: 0.2", "sum to 1, not 1.05"),
    (GS, "values: [1e-3, 1e-2]", "values: [1e-3, fast]", r"gs_config\.yml:72:44: .*expected float, got str 'fast'"),
    (GS, "values: [1e-3, 1e-2]", "values: [1e-3, -1.0]", r"ADAM: Invalid learning rate: -1\.0"),
    (GS, "{gamma: 0.9}", "{gama: 0.9}", "unknown key 'gama'; did you mean 'gamma'"),
    (GS, "params: {average: macro}", "params: {average: makro}", "unknown value 'makro'; did you mean 'macro'"),
    (
        GS,
        "monitoring_key: cross_entropy_loss",
        "monitoring_key: cross_entropy",
        "did you mean 'val/cross_entropy_loss'",
    ),
    (
        GS,
        "prediction_publication_key: *class",
        "prediction_publication_key: klass",
        "nothing is published under the key",
    ),
    (GS, "model_definition: {channels: 16}", "model_definition: {chanels: 16}", "did you mean 'channels'"),
]


WARM = """
import json, os, runpy, sys, traceback
import mlgym.engine.run, mlgym.engine.worker, torch._dynamo, torchmetrics, torchvision
for line in sys.stdin:
    folder, arguments = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.chdir(folder)
        for number, (name, flags) in enumerate([(os.devnull, os.O_RDONLY), *((f"{i}.txt", 0o101) for i in (1, 2))]):
            os.dup2(os.open(name, flags), number)
        sys.path[0], sys.argv = folder, arguments
        status = 0
        try:
            runpy.run_path(arguments[0], run_name="__main__")
        except SystemExit as ended:
            status = ended.code or 0
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def warm() -> Iterator[Run]:
    """As `python`, in a fork of a process that has everything imported: for commands that train nothing."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", WARM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin
        assert process.stdout
        ask, answers = process.stdin, process.stdout

        def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
            ask.write(json.dumps([str(cwd), arguments]) + "\n")
            ask.flush()
            status = int(answers.readline())
            return subprocess.CompletedProcess(
                arguments, status, (cwd / "1.txt").read_text(), (cwd / "2.txt").read_text()
            )

        yield run
        ask.close()


@pytest.mark.parametrize(("file", "old", "new", "words"), BAD)
def test_bad_input(digits: Path, warm: Run, file: str, old: str, new: str, words: str) -> None:
    """One short message that names the place and the remedy, exit code 2, nothing written."""
    replace(digits / file, old, new)
    ended = warm("run.py", "--config_path", "run_config.yml", cwd=digits)
    assert ended.returncode == 2, ended.stderr
    assert re.search(words, ended.stderr), ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stderr.count("\n") <= 3
    assert grid_searches(digits) == []


def test_missing_run_config(digits: Path, python: Run) -> None:
    ended = python("run.py", "--config_path", "run_conf.yml", cwd=digits)
    assert ended.returncode == 2
    assert ended.stderr == "run.py: run_conf.yml: no such file; did you mean 'run_config.yml'?\n"


def test_event_storage_that_cannot_be_written(digits: Path, python: Run) -> None:
    (digits / "event_storage").write_text("a file")
    ended = python("run.py", "--config_path", "run_config.yml", cwd=digits)
    assert ended.returncode == 2
    assert re.search("event_storage: the event storage cannot be written: ", ended.stderr)
    assert "Traceback" not in ended.stderr


def test_status_of_what_is_not_there(tmp_path: Path, python: Run) -> None:
    assert python("-m", "mlgym", "status", "x").returncode == 2
    (tmp_path / "event_storage" / "2026-01-01--00-00-00").mkdir(parents=True)
    (tmp_path / "event_storage" / "2026-01-01--00-00-00" / "event_storage.log").touch()
    ended = python("-m", "mlgym", "status", "2026-01-01--00-00-01")
    assert "did you mean '2026-01-01--00-00-00'" in ended.stderr
    assert python("-m", "mlgym", "status", "2026-01-01--00-00-00").returncode == 0


# --- failures and signals -----------------------------------------------------------------------------------

FAILING = """
class Failing(ConvNet):
    def __init__(self, channels: int = 16, wrong: bool = False) -> None:
        super().__init__(channels)
        self.wrong = wrong

    def forward(self, images):
        if self.wrong and self.training:
            raise RuntimeError("this cell cannot be trained")
        return super().forward(images)
"""


def test_one_failure_does_not_stop_the_others(digits: Path, python: Run) -> None:
    (digits / "conv_net.py").write_text((digits / "conv_net.py").read_text() + FAILING)
    replace(digits / "gs_config.yml", "subscription: conv_net", "subscription: 'conv_net:Failing'")
    replace(
        digits / "gs_config.yml",
        "{channels: 16}",
        "{channels: 16, wrong: {sweep: absolute, values: [true, false]}}",
    )
    ended = python("run.py", "--config_path", "run_config.yml", cwd=digits)
    assert ended.returncode == 1, ended.stderr
    (root,) = grid_searches(digits)
    state = read_state(root / "event_storage.log")
    assert [e.status for e in state.experiments.values()] == ["FAILED", "FAILED", "DONE", "DONE"]
    assert "this cell cannot be trained" in str(state.experiments[0].stacktrace)
    assert "experiment 0 FAILED: RuntimeError: this cell cannot be trained" in ended.stdout
    assert state.status == "FINISHED"
    checked = python("run.py", "check", "--config_path", "run_config.yml", cwd=digits)
    assert checked.returncode == 2
    assert "experiment 0 would fail" in checked.stderr


def test_sys_exit_in_user_code_is_a_failure_of_that_experiment(digits: Path, python: Run) -> None:
    failing = FAILING.replace('raise RuntimeError("this cell cannot be trained")', "raise SystemExit(0)")
    (digits / "conv_net.py").write_text((digits / "conv_net.py").read_text() + failing)
    replace(digits / "gs_config.yml", "subscription: conv_net", "subscription: 'conv_net:Failing'")
    replace(digits / "gs_config.yml", "{channels: 16}", "{wrong: {sweep: absolute, values: [true, false]}}")
    ended = python("run.py", "--config_path", "run_config.yml", cwd=digits)
    assert ended.returncode == 1, ended.stderr
    state = read_state(grid_searches(digits)[0] / "event_storage.log")
    assert [e.status for e in state.experiments.values()] == ["FAILED", "FAILED", "DONE", "DONE"]


def test_user_code_may_change_the_directory(digits: Path, python: Run) -> None:
    moving = FAILING.replace('raise RuntimeError("this cell cannot be trained")', "__import__('os').chdir('/')")
    (digits / "conv_net.py").write_text((digits / "conv_net.py").read_text() + moving)
    replace(digits / "gs_config.yml", "subscription: conv_net", "subscription: 'conv_net:Failing'")
    replace(digits / "gs_config.yml", "{channels: 16}", "{wrong: true}")
    ended = python("run.py", "--config_path", "run_config.yml", cwd=digits)
    assert ended.returncode == 0, ended.stderr
    state = read_state(grid_searches(digits)[0] / "event_storage.log")
    assert [e.status for e in state.experiments.values()] == ["DONE", "DONE"]


def test_a_closed_terminal_does_not_stop_the_grid(digits: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "run.py", "--config_path", "run_config.yml"],
        cwd=digits,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stderr
    process.stderr.close()
    assert process.wait(120) == 0
    state = read_state(grid_searches(digits)[0] / "event_storage.log")
    assert [e.status for e in state.experiments.values()] == ["DONE", "DONE"]


def test_a_full_disk_is_told(digits: Path) -> None:
    """A limit of the kernel on the size of files stands for the disk: the log hits it, the spools do not."""
    command = f"ulimit -f 14; exec {sys.executable} run.py --config_path run_config.yml"
    ended = subprocess.run(
        ["bash", "-c", command],
        cwd=digits,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert ended.returncode == 2, ended.stderr
    assert "cannot be written: File too large" in ended.stderr
    assert "events could not be written to the log" in ended.stderr
    assert any((grid_searches(digits)[0] / "spool").iterdir())


def start(digits: Path, epochs: int = 500) -> subprocess.Popen[str]:
    replace(digits / "run_config.yml", "num_epochs: 2", f"num_epochs: {epochs}")
    replace(digits / "gs_config.yml", "patience: 5", f"patience: {epochs}")
    process = subprocess.Popen(
        [sys.executable, "run.py", "--config_path", "run_config.yml"],
        cwd=digits,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if process.poll() is not None:
            raise AssertionError(process.stderr.read() if process.stderr else "")
        if any("evaluation_result" in log.read_text() for log in digits.glob("event_storage/*/event_storage.log")):
            return process
        time.sleep(0.05)
    raise AssertionError("no event came")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_cleanly(digits: Path, python: Run, signum: signal.Signals) -> None:
    process = start(digits)
    (root,) = grid_searches(digits)
    running = python("-m", "mlgym", "status", root.name, cwd=digits)  # while it runs
    assert "STARTED" in running.stdout
    process.send_signal(signum)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "stopping after this batch" in stderr
    state = read_state(root / "event_storage.log")
    assert (state.status, state.experiments[0].status, state.experiments[1].status) == (
        "INTERRUPTED",
        "STOPPED",
        "INIT",
    )
    assert not any((root / "spool").iterdir())
    assert "INTERRUPTED" in stdout


def test_a_second_signal_kills(digits: Path) -> None:
    """In the middle of a batch that never ends, say (once the check before the run has passed it)."""
    slow = FAILING.replace("if self.wrong and self.training", "if self.training and Path('event_storage').exists()")
    slow = slow.replace('raise RuntimeError("this cell cannot be trained")', "time.sleep(600)")
    model = "import time\nfrom pathlib import Path\n" + (digits / "conv_net.py").read_text() + slow
    (digits / "conv_net.py").write_text(model)
    replace(digits / "gs_config.yml", "subscription: conv_net", "subscription: 'conv_net:Failing'")
    process = start(digits)
    assert process.stderr
    process.send_signal(signal.SIGINT)
    assert any("once more to kill" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130


def test_sigkill_loses_nothing(digits: Path, python: Run) -> None:
    process = start(digits)
    process.kill()
    process.communicate(timeout=60)
    (root,) = grid_searches(digits)
    before = [
        event.seq for event in decode_lines((root / "event_storage.log").read_bytes().rpartition(b"\n")[0] + b"\n")
    ]
    assert before == list(range(1, len(before) + 1))
    assert any((root / "spool").iterdir())  # what was not yet delivered waits there
    status = python("-m", "mlgym", "status", root.name, cwd=digits)
    assert status.returncode == 0
    assert "RUNNING" in status.stdout
    assert "the run is no longer alive; events that it had not delivered are in its spool" in status.stderr


def test_bars_on_a_terminal(digits: Path) -> None:
    replace(digits / "run_config.yml", "num_epochs: 2", "num_epochs: 30")
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (30, 100))
    process = subprocess.Popen(
        [sys.executable, "run.py", "--config_path", "run_config.yml"],
        cwd=digits,
        stdout=subprocess.PIPE,
        stderr=child,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
        },
    )
    os.close(child)
    shown = b""
    while True:
        try:
            data = os.read(parent, 65536)
        except OSError:
            break
        if not data:
            break
        shown += data
    os.close(parent)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"grid" in shown
    assert b"lr=0.001" in shown
    assert b"epoch" in shown
