"""Arguments in, exit code out. Every command imports what it needs when it runs, and not more."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlgym.errors import InputError, MLgymError, one_of, tell

if TYPE_CHECKING:
    from mlgym.build.registry import Registry
    from mlgym.plan.config import Document, RunConfig
    from mlgym.record.fold import State
    from mlgym.record.log import Log
    from mlgym.specs import RunPaths

Blueprint = Callable[["Registry"], None]

_GRAPH_FORMATS = ("svg", "mmd", "json", "txt")
_CARD_FORMATS = ("html", "md", "json")


def run(blueprint: Blueprint | None = None) -> None:
    """The whole of a user's `run.py`: the commands `run` (the default), `plan` and `check` with their registrations.

    Ends the process with the exit code.
    """
    blueprint = blueprint or _nothing  # a function, so that the script is loaded for its jobs all the same
    service = sys.modules.get("mlgym.engine.fork_service")
    if service is not None and service.called_with is not None:
        # A script that does not ask for `__main__` is being loaded for its jobs: this is all they want of it.
        service.called_with.append(blueprint)
        sys.exit(0)
    arguments = sys.argv[1:]
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments = ["run", *arguments]
    sys.exit(main(arguments, blueprint, Path(sys.argv[0]).name))


def _nothing(registry: Registry) -> None:
    """The blueprint of a script that adds no parts."""


def main(arguments: Sequence[str] | None = None, blueprint: Blueprint | None = None, program: str = "mlgym") -> int:
    """Run one command; returns the exit code."""
    _open_standard_streams()
    if str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # dotted paths name a user's own modules
    parsed = _parser(program).parse_args(arguments)
    try:
        if _is_not_first():
            return 0
        code = int(parsed.command(parsed, blueprint))
        sys.stdout.flush()  # here, where a full disk or a closed pipe can still be told
        return code
    except MLgymError as error:
        tell(str(error), program)
        return error.exit_code
    except KeyboardInterrupt:
        tell("interrupted", program)
        return 130
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        tell(str(error), program)
        return 2


def _is_not_first() -> bool:
    """Whether a launcher has started us several times: the first process does everything, and starts its own."""
    names = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK")
    if all(os.environ.get(name, "0") == "0" for name in names):
        return False
    from mlgym.engine.ranks import launched

    return launched(os.environ).rank > 0


def _open_standard_streams() -> None:
    """What is closed is opened on nothing: the next file to be opened would become somebody's output."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(program, description="Run a grid of PyTorch trainings described in YAML.")
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(name: str, function: Callable[..., int], help_: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help_, description=help_)
        added.set_defaults(command=function)
        return added

    for name, function, help_ in (
        ("run", _run, "train and evaluate every experiment of a grid"),
        ("plan", _plan, "print the experiments that a config expands to; runs nothing"),
        ("check", _check, "validate a config: build and evaluate one batch, train nothing"),
    ):
        added = command(name, function, help_)
        added.add_argument("--config_path", type=Path, required=True, help="the run_config.yml")
        if name == "run":
            added.add_argument("--no-board", "--no_board", action="store_true", help="start no dashboard")
        if name == "plan":
            added.add_argument("--json", action="store_true", help="print JSON")
    graph = command("graph", _graph, "draw the components of a gs_config.yml and what they require; runs nothing")
    graph.add_argument("config", type=Path, help="the gs_config.yml")
    graph.add_argument("-o", "--output", type=Path, metavar="FILE", help="a file ending in .svg, .mmd, .json or .txt")
    graph.add_argument(
        "--format", choices=_GRAPH_FORMATS, help="default: as FILE ends, otherwise txt, a table; mmd is Mermaid"
    )
    status = command(
        "status",
        _status,
        "print the table of a grid search, from its log alone, also while it runs",
    )
    found = command("report", _report, "compare combinations over folds and seeds, from the log alone")
    card = command("card", _card, "write the model card of an experiment, from the log alone")
    sync = command("sync", _sync, "send what is here of a grid search to a server")
    export = command("export", _export, "write a grid search for other tools, from its log, also while it runs")
    for added in (status, found, card, sync, export):
        added.add_argument("grid_search_id", help="such as 2026-11-21--10-26-58")
    card.add_argument("experiment", nargs="?", help="its number; default: the best one, as `mlgym status` has it")
    card.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: print Markdown")
    card.add_argument("--format", choices=_CARD_FORMATS, help="default: as the file name ends")
    card.add_argument(
        "--model_info",
        type=Path,
        metavar="FILE",
        help="YAML to take instead of the model_info of the grid search config",
    )
    export.add_argument("-o", "--output", type=Path, metavar="PATH", help="the file, or the folder, to write")
    export.add_argument("--format", choices=list(_FORMATS), help="default: by the suffix of PATH")
    export.add_argument("--force", action="store_true", help="replace what is there already")
    export.add_argument(
        "--tracking_uri", metavar="URI", help="mlflow: such as sqlite:///mlflow.db; default: MLFLOW_TRACKING_URI"
    )
    export.add_argument("--experiment_name", metavar="NAME", help="mlflow: default: the grid search id")
    export.add_argument("--checkpoints", action="store_true", help="mlflow: checkpoints become artifacts as well")
    sync.add_argument("--server", action="append", required=True, metavar="URL", help="may be given several times")
    sync.add_argument("--rest_endpoint", metavar="URL", help="where configs and checkpoints go, if not to the server")
    import_ = command("import", _import, "make an event log of one that an earlier tool has written")
    import_.add_argument("file", type=Path)
    import_.add_argument("--grid_search_id", help="default: the one that its events name")
    for added in (status, found, card, sync, export, import_):
        added.add_argument(
            "--event_storage_path", type=Path, default=Path("event_storage"), help="default: %(default)s"
        )
    for added in (status, found):
        added.add_argument("--metric", help="the score to judge by, as split/tag")
        added.add_argument("--mode", choices=["max", "min"], help="whether more of it is better")
    found.add_argument("--epoch", choices=["last", "best", "average"], help="whose score counts; default: last")
    formats = found.add_mutually_exclusive_group()
    for name in ("json", "csv", "html"):
        formats.add_argument(f"--{name}", action="store_true", help=f"print {name.upper()}")
    status.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _run(parsed: argparse.Namespace, blueprint: Blueprint | None) -> int:
    from msgspec.structs import replace

    from mlgym.plan.config import Warmstart, read_run_config
    from mlgym.plan.experiments import read_plan

    document, run_config = read_run_config(parsed.config_path)
    if parsed.no_board:
        run_config = replace(run_config, logging=replace(run_config.logging, board=False))
    from mlgym.engine.run import executor, launch, warm_start

    with executor(document, run_config, blueprint) as started:  # other processes import torch while this one plans
        if isinstance(run_config.run_configuration, Warmstart):
            return warm_start(document, run_config, started)
        return launch(read_plan(document, run_config), started)


def _plan(parsed: argparse.Namespace, blueprint: Blueprint | None) -> int:
    from mlgym.plan.config import Warmstart, read_run_config
    from mlgym.plan.experiments import read_plan
    from mlgym.record.events import plain
    from mlgym.record.report import aligned, short_names, shown

    document, run_config = read_run_config(parsed.config_path)
    if isinstance(run_config.run_configuration, Warmstart):
        return _plan_warm_start(document, run_config, parsed.json)
    plan = read_plan(document, run_config)
    specs = plan.specs("")
    if parsed.json:
        print(
            json.dumps(
                [
                    {
                        "experiment_id": spec.experiment_id,
                        "config_hash": spec.config_hash,
                        "swept": plain(spec.swept),
                        "num_epochs": spec.num_epochs,
                        "seed": spec.seed,
                    }
                    for spec in specs
                ],
                indent=2,
            )
        )
        return 0
    names = short_names(dict.fromkeys(path for spec in specs for path in spec.swept))
    rows = [
        [str(spec.experiment_id), *(shown(spec.swept[path]) if path in spec.swept else "" for path in names)]
        for spec in specs
    ]
    print("\n".join(aligned([["#", *names.values()], *rows])))
    print(f"\n{len(specs)} experiments of {specs[0].num_epochs} epochs")
    if plan.num_experiments < len(specs):
        print(f"{plan.num_experiments} of them are run: on outer folds only what the inner folds choose")
    return 0


def _plan_warm_start(document: Document, run_config: RunConfig, as_json: bool) -> int:
    from mlgym.engine.run import existing, would_resume
    from mlgym.record.journal import is_held
    from mlgym.record.report import aligned, short_names, shown

    paths = existing(document, run_config)
    state, found = would_resume(document, run_config, paths)
    if as_json:
        rows = [
            {**choice._asdict(), "start": choice.start and {"epoch": choice.start.epoch, "batch": choice.start.batch}}
            for choice in found.choices
        ]
        print(json.dumps(rows, indent=2))
        return 0
    swept = {spec.experiment_id: spec.swept for spec in found.plan.specs("")}
    swept = {i: e.swept for i, e in state.experiments.items()} | swept
    names = short_names(dict.fromkeys(path for values in swept.values() for path in values))
    rows_of_text = [["#", *names.values(), "status", "epochs", "plan", "why"]]
    for choice in found.choices:
        experiment = state.experiments.get(choice.experiment_id)
        values = swept[choice.experiment_id]
        rows_of_text.append(
            [
                str(choice.experiment_id),
                *(shown(values[path]) if path in values else "" for path in names),
                experiment.status if experiment else "-",
                f"{experiment.epochs_done if experiment else 0}/{found.plan.train.num_epochs}",
                choice.action,
                choice.why,
            ]
        )
    print("\n".join(aligned(rows_of_text)))
    print(f"\n{found.summary()}")
    if is_held(paths.lock):
        tell("warning: this grid search is running; the plan is what would be left to do if it died now")
    return 0


def _check(parsed: argparse.Namespace, blueprint: Blueprint | None) -> int:
    from mlgym.plan.config import Warmstart, read_run_config
    from mlgym.plan.experiments import read_plan

    document, run_config = read_run_config(parsed.config_path)
    from mlgym.engine.run import check, divided, executor, existing, would_resume

    with executor(document, run_config, blueprint) as started:
        if isinstance(run_config.run_configuration, Warmstart):
            paths = existing(document, run_config)
            _, found = would_resume(document, run_config, paths)
            found = found._replace(plan=divided(found.plan, started))
            plan, specs = found.plan, found.specs("check")
            failures = check(plan, started, [spec.experiment_id for spec in specs], specs).own if specs else ()
        else:
            plan = divided(read_plan(document, run_config), started)
            failures = check(plan, started).own
    for experiment_id, stacktrace in failures:
        print(f"experiment {experiment_id} would fail:\n{stacktrace}", file=sys.stderr)
    if failures:
        return 2
    print(f"{parsed.config_path}: {len(plan.cells)} experiments, nothing wrong found")
    return 0


def _format(parsed: argparse.Namespace, known: Sequence[str], without_file: str) -> str:
    """The format asked for, by name or by how the file name ends."""
    file: Path | None = parsed.output
    found: str = parsed.format or (file.suffix.lower().removeprefix(".") if file else without_file)
    if found not in known:
        endings = ", ".join(f".{name}" for name in known)
        raise InputError(f"{file}: expected a file name ending in one of {endings}, or --format")
    return found


def _graph(parsed: argparse.Namespace, blueprint: Blueprint | None) -> int:
    from mlgym.plan.config import components, read
    from mlgym.plan.experiments import cells_of
    from mlgym.record.events import plain
    from mlgym.record.pipeline import Sweep, as_json, pipeline
    from mlgym.record.pipeline_text import mermaid, svg, table

    file: Path | None = parsed.output
    format_ = _format(parsed, _GRAPH_FORMATS, "txt")
    document = read(parsed.config)
    if isinstance(document.value, dict) and "run_configuration" in document.value:
        raise InputError(f"{parsed.config}: this is a run config; expected the grid search config that it names")
    cells = cells_of(document)
    values: dict[str, set[str]] = {}
    for cell in cells:
        for path, value in cell.swept.items():
            values.setdefault(".".join(map(str, path)), set()).add(repr(value))
    found = pipeline(components(document.value), {path: Sweep(len(taken)) for path, taken in values.items()})
    if format_ == "json":
        text = json.dumps(plain(as_json(found)), indent=2, allow_nan=False) + "\n"
    else:
        text = {"svg": svg, "mmd": mermaid, "txt": table}[format_](found)
    if file:
        try:
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"{file}: cannot be written: {error.strerror}") from None
    else:
        sys.stdout.write(text)
    return 0


def _status(parsed: argparse.Namespace, blueprint: Blueprint | None) -> int:
    from mlgym.record.events import plain
    from mlgym.record.journal import is_held
    from mlgym.record.log import grid_search, read_state
    from mlgym.record.report import as_json, report
    from mlgym.record.summary import summary
    from mlgym.record.validation import validated

    paths = grid_search(parsed.event_storage_path, parsed.grid_search_id)
    state = read_state(paths.log)
    now = time.time_ns() // 1_000_000 if is_held(paths.lock) else None
    found = report(state, parsed.metric, parsed.mode, now)
    if parsed.json:
        print(json.dumps(plain(as_json(found)), indent=2, allow_nan=False))
    else:
        ranked = validated(state, parsed.metric, parsed.mode) if state.validation else None
        print(summary(found, paths, validation=ranked))
    _warn(state, paths)
    return 0


def _warn(state: State, paths: RunPaths) -> None:
    """Of what the log does not hold."""
    from mlgym.record.journal import is_held

    if state.status == "STARTED" and not is_held(paths.lock):
        waiting = "; events that it had not delivered are in its spool" if any(paths.spools.glob("*.jsonl")) else ""
        print(f"mlgym: warning: the run is no longer alive{waiting}", file=sys.stderr)
    if state.damaged:
        print(f"mlgym: warning: {state.damaged} bytes of the log are damaged and were left out", file=sys.stderr)


def _report(parsed: argparse.Namespace, blueprint: Blueprint | None) -> int:
    from mlgym.record.events import plain
    from mlgym.record.log import grid_search, read_state
    from mlgym.record.tables import as_csv, as_html, as_text
    from mlgym.record.validation import as_json, validated

    paths = grid_search(parsed.event_storage_path, parsed.grid_search_id)
    found = validated(read_state(paths.log), parsed.metric, parsed.mode, parsed.epoch)
    if parsed.json:
        print(json.dumps(plain(as_json(found)), indent=2, allow_nan=False))
    elif parsed.csv or parsed.html:
        sys.stdout.write((as_csv if parsed.csv else as_html)(found))
    else:
        print(as_text(found))
    return 0


_FORMATS = {
    "html": ".html",
    "csv": ".csv",
    "parquet": ".parquet",
    "json": ".json",
    "tensorboard": None,
    "mlflow": None,
}
"""What `export` writes, and the suffix by which it is recognised."""


def _export(parsed: argparse.Namespace, blueprint: Blueprint | None) -> int:
    from mlgym.record.export import needs, write_csv, write_json, write_parquet
    from mlgym.record.log import Log, grid_search

    format_, output = _export_format(parsed), parsed.output
    paths = grid_search(parsed.event_storage_path, parsed.grid_search_id)
    if format_ == "mlflow":
        return _export_to_mlflow(parsed, paths)
    if format_ == "html":
        return _export_html(parsed)
    if format_ == "parquet":
        needs("parquet", "pyarrow")
    if format_ == "tensorboard":
        needs("tensorboard", "tensorboard")
        from mlgym.record.to_tensorboard import write_tensorboard

        write = write_tensorboard
    else:
        write = {"csv": write_csv, "parquet": write_parquet, "json": write_json}[format_]
    log = Log.load(paths.log)
    written = write(log, output, parsed.force)
    print(f"{', '.join(map(str, written))}: {_exported(log)}")
    _warn(log.state, paths)
    return 0


def _export_format(parsed: argparse.Namespace) -> str:
    """The format asked for, with which all other arguments have to make sense."""
    suffixes = {suffix: name for name, suffix in _FORMATS.items() if suffix}
    format_: str | None = parsed.format
    if format_ is None and parsed.output is not None:
        format_ = suffixes.get(parsed.output.suffix.lower())
    if format_ is None and parsed.output is not None:
        raise InputError(f"{parsed.output}: name the --format; only {', '.join(suffixes)} are known by their suffix")
    if parsed.output is not None and suffixes.get(parsed.output.suffix.lower(), format_) != format_:
        raise InputError(f"{parsed.output}: this is no name for {format_}")
    if format_ is None:
        raise InputError("name a file to write, such as -o results.csv, or --format mlflow")
    if format_ == "mlflow" and parsed.output is not None:
        raise InputError("--format mlflow writes no file of its own: leave out -o, and name the --tracking_uri")
    if format_ != "mlflow":
        if parsed.output is None:
            raise InputError(f"--format {format_} writes a file: name it with -o")
        for name in ("tracking_uri", "experiment_name", "checkpoints"):
            if getattr(parsed, name):
                raise InputError(f"--{name} is for --format mlflow, not for {format_}")
    return format_


def _export_html(parsed: argparse.Namespace) -> int:
    """The page is the board's, which nothing here imports."""
    import subprocess

    command = [sys.executable, "-P", "-m", "ml_board.one_file", parsed.grid_search_id, "--program", "mlgym"]
    arguments = ["--event_storage_path", str(parsed.event_storage_path), "--output", str(parsed.output)]
    return subprocess.run([*command, *arguments, *["--force"][: parsed.force]], check=False).returncode


def _export_to_mlflow(parsed: argparse.Namespace, paths: RunPaths) -> int:
    from mlgym.record.log import Log
    from mlgym.record.to_mlflow import need_mlflow, write_mlflow

    uri = parsed.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise InputError("--format mlflow: name the server or database: --tracking_uri sqlite:///mlflow.db")
    if "://" not in uri and Path(uri).suffix in (".db", ".sqlite"):
        raise InputError(f"--tracking_uri {uri}: is a folder to MLflow; did you mean 'sqlite:///{uri}'?")
    need_mlflow(uri)
    log = Log.load(paths.log)
    written = write_mlflow(log, paths, uri, parsed.experiment_name, parsed.checkpoints)
    more = f", {written.checkpoints} checkpoints" if parsed.checkpoints else ""
    print(f"MLflow experiment {written.experiment_name}: {written.runs} runs, {written.points:,} new points{more}")
    if written.waiting:
        print(f"{written.waiting} experiments have not begun, and have no run yet")
    _warn(log.state, paths)
    return 0


def _exported(log: Log) -> str:
    found = log.state.experiments.values()
    points = sum(len(scores) for experiment in found for scores in experiment.scores.values())
    return f"{len(found)} experiments, {points:,} scores, up to event {log.state.seq:,}"


def _card(parsed: argparse.Namespace, blueprint: Blueprint | None) -> int:
    from mlgym.record.card import card
    from mlgym.record.card_html import as_html
    from mlgym.record.card_markdown import as_markdown
    from mlgym.record.card_schema import as_json
    from mlgym.record.card_sources import sources
    from mlgym.record.log import Log, grid_search

    file: Path | None = parsed.output
    format_ = _format(parsed, _CARD_FORMATS, "md")
    paths = grid_search(parsed.event_storage_path, parsed.grid_search_id)
    log = Log.load(paths.log)
    experiment_id = _experiment(parsed.experiment, log.state)
    found = card(sources(log, log.state, experiment_id, _model_info(parsed.model_info)))
    if format_ == "json":
        text = json.dumps(json.loads(as_json(found)), indent=2, ensure_ascii=False) + "\n"
    else:
        text = as_html(found) if format_ == "html" else as_markdown(found)
    if file is None:
        sys.stdout.write(text)
        return 0
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{file}: cannot be written: {error.strerror}") from None
    print(f"{file}: the model card of experiment {experiment_id}")
    return 0


def _experiment(wanted: str | None, state: State) -> int:
    """The id that is meant; the best experiment if none is."""
    if wanted is not None:
        if not wanted.isdecimal():
            known = [str(number) for number in sorted(state.experiments)][:20]
            raise InputError(f"expected the number of an experiment, got {wanted!r}; {one_of(wanted, known)}")
        return int(wanted)
    from mlgym.record.report import report

    validation = state.validation
    metric, mode = (validation.metric, validation.mode) if validation else (None, None)
    best = report(state, metric, mode).winner
    if best is None:
        raise InputError("no experiment has a score yet, so none is the best; name one")
    return best


def _model_info(file: Path | None) -> dict[str, Any] | None:
    """What a YAML file states about the model: all of it, or its section `model_info`."""
    if file is None:
        return None
    from mlgym.plan.config import read
    from mlgym.record.events import plain

    found = read(file).value
    if isinstance(found, dict) and "model_info" in found:
        found = found["model_info"]
    if not isinstance(found, dict):
        raise InputError(f"{file}: expected keys with texts, such as `model_description: ...`")
    stated: dict[str, Any] = plain(found)
    return stated


def _sync(parsed: argparse.Namespace, blueprint: Blueprint | None) -> int:
    from mlgym.plan.config import read_run_config
    from mlgym.record.token import board_token
    from mlgym.record.transfer import send
    from mlgym.specs import RunPaths

    paths = RunPaths(parsed.event_storage_path, parsed.grid_search_id)
    if not paths.root.is_dir():
        known = [path.name for path in paths.event_storage.glob("*") if path.is_dir()]
        raise InputError(
            f"there is no grid search {paths.grid_search_id!r} in {paths.event_storage}; "
            + one_of(paths.grid_search_id, known)
        )
    named: list[str] = []
    rest = parsed.rest_endpoint
    if paths.run_config.is_file():
        logging = read_run_config(paths.run_config)[1].logging
        named, rest = logging.websocket_logging_servers, rest or logging.gs_rest_api_endpoint
    for url in parsed.server:
        sent, files = send(paths, url, rest, board_token())
        print(f"{url} has all {sent:,} events" + (f", {files} configs and checkpoints" if files else ""))
    left = sorted(paths.spools.glob("*.jsonl"))
    if not paths.log.is_file() and left:
        if missing := [url for url in named if url not in parsed.server]:
            print(f"{paths.spools} is kept for {', '.join(missing)}")
        else:
            for spool in left:
                spool.unlink()
    return 0


def _import(parsed: argparse.Namespace, blueprint: Blueprint | None) -> int:
    from mlgym.record.transfer import import_log

    paths, converter = import_log(parsed.file, parsed.event_storage_path, parsed.grid_search_id)
    print(f"{converter.seq:,} events are now in {paths.log}")
    if converter.unread_count:
        print(f"{converter.unread_bytes:,} bytes in {converter.unread_count:,} places are no events, such as")
        for piece in converter.unread[:10]:
            print(f"  byte {piece.offset:,}: {piece.beginning}")
    return 0
