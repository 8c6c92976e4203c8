"""Run every benchmark and write docs/benchmarks.md and benchmarks/results.json. `python -m benchmarks [name ...]`"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks import accelerate, checkpoints, cluster, components, delivery, emit, epoch, folding, jobs, page, scaling
from benchmarks.measure import Result, machine

RESULTS = Path(__file__).parent / "results.json"
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
ALL = {
    "epoch": epoch.run,
    "components": components.run,
    "emit": emit.run,
    "fold": folding.run,
    "jobs": jobs.run,
    "accelerate": accelerate.run,
    "cluster": cluster.run,
    "checkpoints": checkpoints.run,
    "delivery": delivery.run,
    "page": page.run,
    "scaling": scaling.run,
}


def main() -> int:
    chosen = sys.argv[1:] or list(ALL)
    if unknown := set(chosen) - set(ALL):
        sys.exit(f"unknown benchmark {min(unknown)!r}; there is: {', '.join(ALL)}")
    saved = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in chosen:
        print(f"{name} ...", flush=True)
        results = ALL[name]()
        saved[name] = {"machine": machine(), "results": [result.as_json() for result in results]}
        for result in results:
            print("  " + result.line())
    RESULTS.write_text(json.dumps(saved, indent=1) + "\n")
    PAGE.write_text(written(saved))
    return 0


def written(saved: dict[str, dict[str, object]]) -> str:
    """docs/benchmarks.md, made of the saved results alone."""
    text = [
        "# Benchmarks",
        "",
        "Written by `make bench`; the raw measurements are in `benchmarks/results.json`. The variants of one table",
        "took turns in one run, so their ratios hold although the machine is noisy; absolute figures do not.",
    ]
    for name in ALL:
        if name not in saved:
            continue
        found = saved[name]
        text += [
            "",
            f"## {name}",
            "",
            str(ALL[name].__globals__["__doc__"]).strip(),
            "",
            f"Machine: {found['machine']}.",
            "",
        ]
        text += ["| variant | median | min to max | runs | goal |", "|---|---|---|---|---|"]
        results = found["results"]
        assert isinstance(results, list)
        text += [Result(**entry).row() for entry in results]
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    sys.exit(main())
