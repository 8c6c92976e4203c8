"""YAML files as typed configuration; every error says file, line and column. Imports errors, specs, schema."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import yaml

from mlgym.errors import ConfigError, ConfigPath, InputError, one_of
from mlgym.schema import convert
from mlgym.specs import ROOTS, SECTIONS, ComponentSpec

OPTIONAL_ROOTS = frozenset({"lr_scheduler", "early_stopping_strategy", "checkpointing_strategy"})

_MAX_DEPTH = 100
_MAX_NODES = 1_000_000  # a few anchors that hold each other can expand to more than any memory holds


# --- YAML with positions ------------------------------------------------------------------------------------


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The safe loader with the scalars of YAML 1.2: `1e-3` is a number, `no` and `2026-01-01` are strings."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (the base's type)


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), ["" if c == "\0" else c for c in _first]
    )


def _construct_int(loader: Any, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _construct_float(loader: Any, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node)).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)


class Document:
    """A YAML file: its text, its value as plain data, and where each part of that value stands."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.text = text
        self._positions: dict[ConfigPath, yaml.Mark] = {}
        loader = _Loader(text)
        self._merged: dict[int, list[tuple[Any, yaml.Node, yaml.Node]]] = {}
        try:
            self._refuse_depth(text)
            node = loader.get_single_node()
            self.value: Any = None if node is None else self._build(loader, node, (), ())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise ConfigError(
                f"this is not valid YAML: {error.problem or error.context}", place=self._at(mark)
            ) from None
        except yaml.YAMLError as error:
            raise ConfigError(f"this is not valid YAML: {error}", place=str(path)) from None
        finally:
            loader.dispose()

    def place(self, path: ConfigPath) -> str:
        """`file:line:column` of the value at `path`, or of the nearest part around it."""
        while path and path not in self._positions:
            path = path[:-1]
        return self._at(self._positions.get(path))

    def _at(self, mark: Any) -> str:
        return f"{self.path}:{mark.line + 1}:{mark.column + 1}" if mark else str(self.path)

    def _refuse_depth(self, text: str) -> None:
        """Before composing: the composer recurses in C, and would take the process down with it."""
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > _MAX_DEPTH:
                    raise ConfigError(f"nested more than {_MAX_DEPTH} deep", place=self._at(event.start_mark))
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1

    def _build(self, loader: Any, node: yaml.Node, path: ConfigPath, around: tuple[int, ...]) -> Any:
        self._positions.setdefault(path, node.start_mark)
        if len(self._positions) > _MAX_NODES:
            raise ConfigError(f"the aliases expand to more than {_MAX_NODES:,} values", place=str(self.path))
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(loader, node)
        if node.tag not in ("tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"):
            raise ConfigError(f"the tag {node.tag!r} is not plain data", place=self._at(node.start_mark))
        self._refuse_circle(node, around)
        around = (*around, id(node))
        if isinstance(node, yaml.SequenceNode):
            return [self._build(loader, item, (*path, i), around) for i, item in enumerate(node.value)]
        assert isinstance(node, yaml.MappingNode)
        result: dict[Any, Any] = {}
        for key, key_node, value_node in self._pairs(loader, node, around):
            self._positions[(*path, key)] = key_node.start_mark
            result[key] = self._build(loader, value_node, (*path, key), around)
        return result

    def _refuse_circle(self, node: yaml.Node, around: tuple[int, ...]) -> None:
        if id(node) in around:
            raise ConfigError("an anchor contains itself", place=self._at(node.start_mark))

    def _scalar(self, loader: Any, node: yaml.ScalarNode) -> Any:
        if node.tag.removeprefix("tag:yaml.org,2002:") not in ("str", "int", "float", "bool", "null"):
            raise ConfigError(f"the tag {node.tag!r} is not plain data", place=self._at(node.start_mark))
        try:
            return loader.construct_object(node)
        except (ValueError, KeyError):
            raise ConfigError(f"{node.value!r} is not what its tag says", place=self._at(node.start_mark)) from None

    def _pairs(
        self, loader: Any, node: yaml.MappingNode, around: tuple[int, ...]
    ) -> list[tuple[Any, yaml.Node, yaml.Node]]:
        """Keys with their nodes, those that `<<` takes in included: own keys win, then earlier merges."""
        if id(node) in self._merged:
            return self._merged[id(node)]
        own: dict[Any, tuple[Any, yaml.Node, yaml.Node]] = {}
        merged: dict[Any, tuple[Any, yaml.Node, yaml.Node]] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError("a key must be a single value", place=self._at(key_node.start_mark))
            if key_node.tag == "tag:yaml.org,2002:merge":
                sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                for source in sources:
                    if not isinstance(source, yaml.MappingNode):
                        raise ConfigError("<< takes a mapping, or a list of them", place=self._at(key_node.start_mark))
                    self._refuse_circle(source, around)
                    for pair in self._pairs(loader, source, (*around, id(source))):
                        merged.setdefault(pair[0], pair)
                continue
            key = self._scalar(loader, key_node)
            if key in own:
                raise ConfigError(f"the key {key!r} is given twice", place=self._at(key_node.start_mark))
            own[key] = (key, key_node, value_node)
        self._merged[id(node)] = list((merged | own).values())
        return self._merged[id(node)]


def read(path: Path) -> Document:
    """The YAML file at `path`. Raises `InputError` when it cannot be read."""
    try:
        return Document(path, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = one_of(path.name, (p.name for p in path.parent.glob("*.y*ml"))) if path.parent.is_dir() else ""
        raise InputError(f"{path}: no such file" + (f"; {near}" if near else "")) from None
    except IsADirectoryError:
        raise InputError(f"{path}: this is a directory, not a YAML file") from None
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the path
        raise InputError(f"{path}: cannot be read: {error}") from None


def typed(document: Document, annotation: Any) -> Any:
    """The document's value as `annotation`."""
    try:
        return convert(document.value, annotation)
    except ConfigError as error:
        raise error.locate(document.place) from None


# --- run_config.yml -----------------------------------------------------------------------------------------


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class TrainConfig(_Strict, frozen=True):
    gs_config_path: str
    num_epochs: int
    validation_config_path: str | None = None
    priority: list[dict[str, Any]] = []
    num_batches_per_epoch: int | None = None
    checkpoint_every_n_batches: int | None = None
    deterministic: bool = False
    seed: int = 0


class WarmstartConfig(_Strict, frozen=True):
    """What is not given is as it was."""

    gridsearch_id: str
    num_epochs: int
    gs_config_path: str | None = None
    priority: list[dict[str, Any]] = []
    num_batches_per_epoch: int | None = None
    checkpoint_every_n_batches: int | None = None


class Warmstart(_Strict, frozen=True, tag_field="type", tag="warmstart"):
    config: WarmstartConfig


class Train(_Strict, frozen=True, tag_field="type", tag="train"):
    config: TrainConfig


class MainProcessConfig(_Strict, frozen=True):
    computation_device_id: int | None = None


class MainProcess(_Strict, frozen=True, tag_field="type", tag="main_process"):
    config: MainProcessConfig = MainProcessConfig()


class JobsConfig(_Strict, frozen=True):
    """How jobs are watched and tried again. Times in seconds."""

    max_retries: int = 2
    retry_delay: float = 1.0
    """Before the first retry; twice as long before each further one."""
    retry_failed: bool = False
    """Whether an exception of the experiment's code is retried as well."""
    job_timeout: float | None = None
    progress_timeout: float | None = 3600.0
    """How long a job may go without finishing a batch before it counts as hung."""


class MultiprocessingConfig(JobsConfig, frozen=True):
    process_count: int | None = None
    """Jobs at a time; default: one (or `jobs_per_device`) for each device, on the CPU one for each core."""
    computation_device_ids: list[int] = []
    jobs_per_device: int | None = None


class Multiprocessing(_Strict, frozen=True, tag_field="type", tag="multiprocessing"):
    config: MultiprocessingConfig = MultiprocessingConfig()


class AccelerateConfig(JobsConfig, frozen=True):
    """What Accelerate's launcher or its config file does not say."""

    num_processes: int | None = None
    """That train an experiment together; default: as many as the launcher was asked for, or one."""
    find_unused_parameters: bool = False
    """For models of which a training step may leave a part unused: DistributedDataParallel then looks for it."""


class Accelerate(_Strict, frozen=True, tag_field="type", tag="accelerate"):
    config: AccelerateConfig = AccelerateConfig()


class RayConfig(_Strict, frozen=True):
    address: str | None = None
    """Of a running cluster (`auto`: the one that this machine belongs to); None: one of this run's own, here."""
    num_cpus_per_job: float = 1
    num_gpus_per_job: float = 0
    max_concurrent: int | None = None
    """Jobs at a time; default: as many as the cluster has room for."""
    max_retries: int = 2
    runtime_env: dict[str, Any] = {}
    """Ray's, as it stands; `working_dir: null` when every machine sees the current directory."""


class RayCluster(_Strict, frozen=True, tag_field="type", tag="ray"):
    config: RayConfig = RayConfig()


class LoggingConfig(_Strict, frozen=True):
    event_storage_path: str = "event_storage"
    board: bool = True
    """Whether the run starts a board of its own, when no servers are named."""
    websocket_logging_servers: list[str] = []
    gs_rest_api_endpoint: str | None = None
    delivery_timeout: float = 60.0
    """Seconds that the end of a run, or the beginning of a warm start, waits for the servers."""


class RunConfig(_Strict, frozen=True):
    """`run_config.yml`: what to do, where, and where to log."""

    run_configuration: Train | Warmstart
    environment: MainProcess | Multiprocessing | Accelerate | RayCluster = MainProcess()
    logging: LoggingConfig = LoggingConfig()


def read_run_config(path: Path) -> tuple[Document, RunConfig]:
    """The run config at `path` and its file. Raises `InputError`."""
    document = read(path)
    if not isinstance(document.value, dict):
        raise ConfigError(
            "expected a mapping with the key 'run_configuration', got "
            + ("an empty file" if document.value is None else type(document.value).__name__),
            place=document.place(()),
        )
    config: RunConfig = typed(document, RunConfig)
    try:
        _check_numbers(config)
    except ConfigError as error:
        raise error.locate(document.place) from None
    return document, config


def _check_numbers(config: RunConfig) -> None:
    _check_logging(config.logging)
    train: ConfigPath = ("run_configuration", "config")
    where: ConfigPath = ("environment", "config")
    found = config.run_configuration.config
    _at_least(0, train, num_epochs=found.num_epochs, seed=getattr(found, "seed", None))
    _at_least(1, train, num_batches_per_epoch=found.num_batches_per_epoch)
    _at_least(1, train, checkpoint_every_n_batches=found.checkpoint_every_n_batches)
    if isinstance(config.environment, MainProcess):
        _at_least(0, where, computation_device_id=config.environment.config.computation_device_id)
        return
    if isinstance(config.environment, RayCluster):
        _check_ray(config.environment.config, where)
        return
    jobs: JobsConfig = config.environment.config
    _at_least(0, where, max_retries=jobs.max_retries, retry_delay=jobs.retry_delay)
    for key, seconds in (("job_timeout", jobs.job_timeout), ("progress_timeout", jobs.progress_timeout)):
        if seconds is not None and not seconds > 0:
            raise ConfigError(f"must be more than 0, not {seconds:g}", (*where, key))
    if isinstance(config.environment, Accelerate):
        _at_least(1, where, num_processes=config.environment.config.num_processes)
        return
    many = config.environment.config
    _at_least(1, where, process_count=many.process_count, jobs_per_device=many.jobs_per_device)
    if many.jobs_per_device is not None and not many.computation_device_ids:
        raise ConfigError(
            "needs computation_device_ids; on the CPU, process_count says it all", (*where, "jobs_per_device")
        )
    for i, device in enumerate(many.computation_device_ids):
        _at_least(0, (*where, "computation_device_ids"), **{str(i): device})
        if device in many.computation_device_ids[:i]:
            raise ConfigError(f"device {device} is named twice", (*where, "computation_device_ids"))


def _check_ray(config: RayConfig, where: ConfigPath) -> None:
    _at_least(0, where, num_cpus_per_job=config.num_cpus_per_job, num_gpus_per_job=config.num_gpus_per_job)
    _at_least(1, where, max_concurrent=config.max_concurrent)
    _at_least(0, where, max_retries=config.max_retries)
    if config.num_gpus_per_job > 1 and config.num_gpus_per_job % 1:
        raise ConfigError(
            f"more than one is a whole number, not {config.num_gpus_per_job:g}", (*where, "num_gpus_per_job")
        )
    if config.address not in (None, "auto") and not re.fullmatch(r"[^\s:/]+:\d{1,5}", config.address):
        raise ConfigError(
            f"expected null (a cluster of this run's own), auto or host:port, not {config.address!r}",
            (*where, "address"),
        )


def _check_logging(logging: LoggingConfig) -> None:
    for i, url in enumerate(logging.websocket_logging_servers):
        _refuse_no_url(url, ("logging", "websocket_logging_servers", i))
        if url in logging.websocket_logging_servers[:i]:
            raise ConfigError(f"{url} is named twice", ("logging", "websocket_logging_servers"))
    if logging.gs_rest_api_endpoint is not None:
        where: ConfigPath = ("logging", "gs_rest_api_endpoint")
        _refuse_no_url(logging.gs_rest_api_endpoint, where)
        if not logging.websocket_logging_servers:
            raise ConfigError("needs websocket_logging_servers: they take the events", where)
    _at_least(0, ("logging",), delivery_timeout=logging.delivery_timeout)


def _refuse_no_url(url: str, where: ConfigPath) -> None:
    try:
        found = urlsplit(url)
        good = found.scheme in ("http", "https") and found.hostname and found.path in ("", "/") and not found.query
        good = good and (found.port is None or found.port > 0)
    except ValueError:
        good = False
    if not good:
        raise ConfigError(f"expected an address such as http://127.0.0.1:5002, not {url!r}", where)


def _at_least(least: int, where: ConfigPath, **values: float | None) -> None:
    for key, value in values.items():
        if value is not None and not value >= least:
            raise ConfigError(f"must be at least {least}, not {value}", (*where, key))


# --- gs_config.yml ------------------------------------------------------------------------------------------


def components(value: Any) -> dict[str, Any]:
    """The raw components of a grid search config, in the order written, by name."""
    if not isinstance(value, dict):
        got = "an empty file" if value is None else type(value).__name__
        raise ConfigError(f"expected a mapping of component names to components, got {got}")
    for name in value:
        if not isinstance(name, str):
            raise ConfigError(f"the name of a component must be a string, not {name!r}", (name,))
    return {name: entry for name, entry in value.items() if name not in SECTIONS}


def required(config: dict[str, Any], roots: Sequence[str] = ROOTS) -> dict[str, ComponentSpec]:
    """The components that the engine asks for (`roots`), and all that they require, each after those it requires.

    Only these are looked at: an existing file may hold entries that merely carry injected values.
    Raises `ConfigError` for a component that is malformed or missing, and for a cycle.
    """
    found: dict[str, ComponentSpec] = {}
    open_: list[str] = []

    def visit(name: str) -> None:
        if name in found:
            return
        if name in open_:
            cycle = " -> ".join([*open_[open_.index(name) :], name])
            raise ConfigError(f"the requirements go in a circle: {cycle}", (name, "requirements"))
        try:
            spec: ComponentSpec = convert(config[name], ComponentSpec)
        except ConfigError as error:
            raise error.inside(name) from None
        open_.append(name)
        if len(open_) > 300:
            raise ConfigError("more than 300 components require each other in a row", (name, "requirements"))
        seen: set[str] = set()
        for i, requirement in enumerate(spec.requirements):
            where = (name, "requirements", i)
            if requirement.component_name not in config:
                raise ConfigError(
                    f"component {name!r} requires {requirement.component_name!r}, which does not exist; "
                    + one_of(requirement.component_name, config),
                    (*where, "component_name"),
                )
            if requirement.name in seen:
                raise ConfigError(f"the requirement {requirement.name!r} is given twice", (*where, "name"))
            seen.add(requirement.name)
            visit(requirement.component_name)
        open_.pop()
        found[name] = spec

    for root in roots:
        if root in config:
            visit(root)
        elif root not in OPTIONAL_ROOTS:
            raise ConfigError(f"there is no component named {root!r}; {one_of(root, config)}")
    return found
