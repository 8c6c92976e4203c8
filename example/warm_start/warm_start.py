"""Run the digits example, kill it without mercy, go on, and compare with a run that was never killed.

    python warm_start.py [folder]

Every score must be the same to the last bit.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path

from mlgym.record.log import read_state

DIGITS = Path(__file__).parent.parent / "digits_grid"
WARM_START = """
run_configuration:
  type: warmstart
  config: {{gridsearch_id: {gridsearch_id}, num_epochs: 12}}
environment:
  type: multiprocessing
  config: {{process_count: 2}}
"""


def main(folder: Path) -> None:
    killed, whole = (folder / name for name in ("killed", "whole"))
    for copy in (killed, whole):
        shutil.copytree(DIGITS, copy, ignore=shutil.ignore_patterns("event_storage", "__pycache__"))

    print("a run, until some experiments are done and others in the middle ...")
    process = subprocess.Popen(command("run_config.yml"), cwd=killed)
    while not in_the_middle(killed):
        time.sleep(0.05)
    process.kill()  # SIGKILL: it cannot even say goodbye
    process.wait()

    print("\nkilled; this is what a warm start would do:")
    (killed / "warm_start.yml").write_text(WARM_START.format(gridsearch_id=log(killed).parent.name))
    subprocess.run(command("warm_start.yml", "plan"), cwd=killed, check=True)
    print("\ngoing on ...")
    subprocess.run(command("warm_start.yml"), cwd=killed, check=True)

    print("\na run that is not killed ...")
    subprocess.run(command("run_config.yml"), cwd=whole, check=True)

    one, other = (read_state(log(copy)).experiments for copy in (killed, whole))
    assert {i: e.scores for i, e in one.items()} == {i: e.scores for i, e in other.items()}
    print("\nthe same scores, to the last bit")


def command(config: str, *subcommand: str) -> list[str]:
    return [sys.executable, "run.py", *subcommand, "--config_path", config]


def log(folder: Path) -> Path:
    return next(folder.glob("event_storage/*/event_storage.log"))


def in_the_middle(folder: Path) -> bool:
    logs = list(folder.glob("event_storage/*/event_storage.log"))
    experiments = read_state(logs[0]).experiments.values() if logs else ()
    return sum(e.status == "DONE" for e in experiments) >= 3 and any(
        e.status == "RUNNING" and 4 <= e.epochs_done <= 8 for e in experiments
    )


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "warm_start_runs")
    if target.exists():
        sys.exit(f"{target} exists already")
    main(target)
