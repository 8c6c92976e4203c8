"""The executor for this very process: one experiment after the other, on one device. What a debugger wants.

Importing this does not import torch; the first question does.
"""

from __future__ import annotations

import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mlgym.engine.checking import Checked, check
from mlgym.engine.dividing import Divided, divide
from mlgym.engine.executor import BY_SIGNAL, Blueprint, Emit, Stop
from mlgym.errors import ConfigError, InputError
from mlgym.plan.config import MainProcessConfig
from mlgym.plan.folds import CrossValidation, NestedCrossValidation
from mlgym.record.spool import new_source
from mlgym.specs import ExperimentSpec, RunPaths

if TYPE_CHECKING:
    import torch

    from mlgym.build.registry import Registry


class InProcess:
    """Runs experiments here. What they print stays on the terminal; a fault that kills them kills the run."""

    kills_after = 2  # the batch that does not end is in this very process

    def __init__(self, config: MainProcessConfig, blueprint: Blueprint | None) -> None:
        self._config = config
        self._blueprint = blueprint

    @cached_property
    def _registry(self) -> Registry:
        from mlgym.engine import worker

        return worker.registry_of(self._blueprint)

    @cached_property
    def _device(self) -> torch.device:
        from mlgym.engine import worker

        try:
            return worker.device(self._config.computation_device_id)
        except InputError as error:
            raise ConfigError(str(error), ("environment", "config", "computation_device_id")) from None

    def gpus(self) -> list[dict[str, Any]]:
        from mlgym.engine import provenance

        assert self._device
        return provenance.gpus()

    def check(self, specs: list[ExperimentSpec]) -> Checked:
        return check(specs, self._registry, self._device)

    def divide(self, specs: list[ExperimentSpec], wanted: CrossValidation | NestedCrossValidation) -> Divided:
        return divide(specs, wanted, self._registry)

    def run(self, specs: list[ExperimentSpec], paths: RunPaths, emit: Emit, stop: Stop) -> str | None:
        import torch

        from mlgym.engine import worker

        threads = torch.get_num_threads()
        for spec in specs:
            torch.set_num_threads(spec.num_threads or threads)
            if "torch._dynamo" in sys.modules:  # what was compiled for one experiment must not matter to the next
                sys.modules["torch._dynamo"].reset()
            source = new_source(f"job-{spec.experiment_id}-{spec.attempt}")
            if stop.requested():
                return BY_SIGNAL
            state = worker.run_job(spec, paths, source, self._registry, self._device, stop.requested)
            if state == "STOPPED":
                return BY_SIGNAL
        return None

    def close(self) -> None:
        pass
