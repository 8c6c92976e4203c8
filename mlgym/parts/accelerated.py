"""One of several processes that train one model together, by Hugging Face Accelerate. Imports backend.

Accelerate says which device, wraps the model (DistributedDataParallel, FSDP) and runs it in mixed precision, as its
launcher or its config file has set it. Batches are divided by the loaders themselves, so that no sample is counted
twice, and what the processes tell each other is bytes, not pickled objects.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.optim.optimizer import Optimizer

from mlgym.errors import ConfigError, InputError
from mlgym.parts.backend import Backend, Precision, Predicted
from mlgym.parts.batch import Batch, Part
from mlgym.parts.losses import Loss
from mlgym.parts.optimizers import OptimizerBundle

_FIRST = 256
"""Bytes of an agreement's first message, which nearly always is the only one."""

_AGREE_EVERY = 0.05
"""Seconds from asking the main process whether to stop to asking it again."""


class Accelerated(Backend):
    """A process that `torch.distributed` has made one of a group, or that is alone.

    Raises `InputError` for what Accelerate is set to and we cannot do.
    """

    def __init__(self, find_unused_parameters: bool = False) -> None:
        from accelerate import Accelerator, DistributedDataParallelKwargs

        options = DistributedDataParallelKwargs(find_unused_parameters=find_unused_parameters)
        try:
            self._accelerator: Any = Accelerator(cpu=not torch.cuda.is_available() or None, kwargs_handlers=[options])
        except (ValueError, RuntimeError, NotImplementedError, ImportError) as error:
            raise InputError(f"Accelerate cannot be used as it is set up: {error}") from None
        _refuse(self._accelerator)
        super().__init__(self._accelerator.device)
        self.is_sharded = self._accelerator.is_fsdp2
        self.part = Part(self._accelerator.process_index, self._accelerator.num_processes)
        self._scaler = self._accelerator.scaler
        self._accumulated: int = self._accelerator.gradient_accumulation_steps
        self._wrapped: nn.Module | None = None
        if self.part.size > 1:
            _compute_metrics_alone()

    def __str__(self) -> str:
        size = self.part.size
        if size == 1:
            return str(self.device)
        if self.device.type == "cpu":
            return f"cpu x {size}"
        return ", ".join(f"{self.device.type}:{index}" for index in range(size))

    # --- training ---

    def place(self, model: nn.Module) -> nn.Module:
        return model if self.is_sharded else super().place(model)

    def prepare(self, model: nn.Module, optimizer: Optimizer) -> None:
        if self.is_sharded:
            if isinstance(optimizer, OptimizerBundle):
                raise ConfigError("FSDP goes with one optimizer, not with a bundle", ("optimizer", "variant_key"))
            self._accelerator.prepare(model, optimizer)  # both in place
            self._wrapped = model
        elif not any(is_lazy(parameter) for parameter in model.parameters()):
            self._wrapped = self._accelerator.prepare_model(model)

    def trained(self, model: nn.Module) -> nn.Module:
        if self._wrapped is None:  # its parameters have got their shapes meanwhile
            self._wrapped = self._accelerator.prepare_model(model)
        return self._wrapped

    def accumulated(self, batches: int) -> int:
        if batches > 1 and self._accumulated not in (1, batches):
            raise ConfigError(
                f"is {batches}, but Accelerate's gradient_accumulation_steps is {self._accumulated}",
                ("accumulate_batches",),
            )
        return max(batches, self._accumulated)

    def precision(self, wanted: Precision) -> Precision:
        own = self._accelerator.mixed_precision
        if own == "no":
            return wanted
        if own == "fp16" and self.device.type == "cpu":
            raise InputError("Accelerate's mixed_precision is fp16, which takes a GPU; bf16 works on the CPU as well")
        if wanted not in ("fp32", own):
            raise ConfigError(f"is {wanted}, but Accelerate's mixed_precision is {own}", ("precision",))
        return "fp32"  # Accelerate has seen to it

    def loss(self, loss: Loss, batch: Batch) -> torch.Tensor:
        return loss(batch) if self.part.size == 1 else loss.of_part(batch, self.part.size, self._total)

    def last_of_step(self, last: bool) -> None:
        if isinstance(self._wrapped, DistributedDataParallel):
            self._wrapped.require_backward_grad_sync = last
        elif self.is_sharded:
            assert self._wrapped is not None
            self._wrapped.set_requires_gradient_sync(last)  # type: ignore[operator]

    # --- what processes tell each other ---

    def agreed(self, value: Any) -> Any:
        if self.part.size == 1:
            return value
        content = msgspec.msgpack.encode(value) if self.is_main else b""
        first = self._broadcast(len(content).to_bytes(8, "little") + content[: _FIRST - 8], _FIRST)
        length = int.from_bytes(first[:8], "little")
        found = first[8 : 8 + length]
        if length > len(found):
            found += self._broadcast(content[_FIRST - 8 :], length - len(found))
        return msgspec.msgpack.decode(found)

    def _broadcast(self, content: bytes, size: int) -> bytes:
        """The main process's `content`, padded to `size` bytes."""
        tensor = torch.zeros(size, dtype=torch.uint8)
        if self.is_main:
            tensor[: len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        tensor = tensor.to(self.device)
        dist.broadcast(tensor, 0)
        return tensor.cpu().numpy().tobytes()

    def agreeing(self, asked: Callable[[], bool]) -> Callable[[], bool]:
        return asked if self.part.size == 1 else _Agreeing(self, asked)

    def _total(self, value: torch.Tensor) -> torch.Tensor:
        """Of a number, over the processes."""
        value = value.detach().clone()
        dist.all_reduce(value)
        return value

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        return value if self.part.size == 1 else self._total(value) / self.part.size

    def gathered(self, predicted: Predicted) -> Predicted:
        if self.part.size == 1:
            return predicted
        plan: list[list[list[Any]]] = []
        values: list[torch.Tensor] = []
        for pair in predicted:
            plan.append([[key, _dtype(value), list(value.shape)] for named in pair for key, value in named.items()])
            values += [_as_bytes(value) for named in pair for value in named.values()]
        plans = self._gather(torch.frombuffer(bytearray(msgspec.msgpack.encode(plan)), dtype=torch.uint8))
        contents = self._gather(torch.cat(values) if values else torch.empty(0, dtype=torch.uint8))
        if not self.is_main:
            return []
        num_predictions = [len(predictions) for predictions, _ in predicted]
        parts = [
            _read(msgspec.msgpack.decode(plan.cpu().numpy().tobytes()), content, num_predictions)
            for plan, content in zip(plans, contents, strict=True)
        ]
        return [pair for batch in zip(*parts, strict=True) for pair in batch]

    def collected(self, state: bytes) -> list[bytes]:
        if self.part.size == 1:
            return []
        states = self._gather(torch.frombuffer(bytearray(state), dtype=torch.uint8))
        return [state.cpu().numpy().tobytes() for state in states[1:]]

    def _gather(self, content: torch.Tensor) -> list[torch.Tensor]:
        """The bytes of each process, on the main process."""
        lengths = torch.zeros(self.part.size, dtype=torch.int64, device=self.device)
        lengths[self.part.rank] = len(content)
        dist.all_reduce(lengths)
        longest = int(lengths.max())
        padded = torch.zeros(longest, dtype=torch.uint8, device=self.device)
        padded[: len(content)] = content.to(self.device)
        found = [torch.empty_like(padded) for _ in range(self.part.size)] if self.is_main else None
        dist.gather(padded, found)
        return [piece[: int(length)] for piece, length in zip(found or [], lengths.tolist(), strict=False)]

    def same_buffers(self, model: nn.Module) -> None:
        if self.part.size > 1:
            for buffer in model.buffers():
                if buffer is not None and not is_lazy(buffer):
                    dist.broadcast(buffer, 0)


class _Agreeing:
    """Asks the main process, and tells the others; not at every call, as a message may cost more than a batch."""

    def __init__(self, backend: Backend, asked: Callable[[], bool]) -> None:
        self._backend = backend
        self._asked = asked
        self._found = self._wanted = False
        self._left = 0
        self._since, self._calls = time.monotonic(), 0

    def __call__(self) -> bool:
        self._wanted = self._wanted or (self._backend.is_main and self._asked())
        self._calls += 1
        if self._left:
            self._left -= 1
            return self._found
        now = time.monotonic()
        rate = self._calls / max(now - self._since, 1e-6)
        self._since, self._calls = now, 0
        self._found, self._left = self._backend.agreed([self._wanted, min(1000, int(rate * _AGREE_EVERY))])
        return self._found


def _refuse(accelerator: Any) -> None:
    """Raises `InputError` for ways of training that checkpoints or steps of ours do not go with."""
    if (precision := accelerator.mixed_precision) not in ("no", "fp16", "bf16", "fp8"):
        raise InputError(f"there is no mixed_precision {precision!r}, which Accelerate is set to")
    kind = accelerator.distributed_type.value
    if kind in ("DEEPSPEED", "MEGATRON_LM"):
        raise InputError(
            f"{kind} keeps optimizer and checkpoints to itself, in pickled files: use FSDP (fsdp_version: 2) to divide "
            "a model among devices"
        )
    if kind == "FSDP" and not accelerator.is_fsdp2:
        raise InputError("Accelerate is set to FSDP 1, which torch has given up: set fsdp_version: 2")


def _compute_metrics_alone() -> None:
    """torchmetrics, a user's own too, would ask the other processes for their part; the main process has everything."""
    from torchmetrics import metric

    from mlgym.parts import torchvision_ops  # noqa: F401 (first: see there)

    metric.jit_distributed_available = lambda: False


def _dtype(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _as_bytes(value: torch.Tensor) -> torch.Tensor:
    return value.detach().contiguous().reshape(-1).view(torch.uint8)


def _read(plan: list[list[list[Any]]], content: torch.Tensor, num_predictions: list[int]) -> Predicted:
    """What `plan` says is in `content`."""
    found = []
    at = 0
    for tensors, predictions in zip(plan, num_predictions, strict=True):
        named: list[tuple[str, torch.Tensor]] = []
        for key, name, shape in tensors:
            dtype = getattr(torch, name)
            size = dtype.itemsize
            for extent in shape:
                size *= extent
            # a copy, because it has to begin where its type may begin
            named.append((key, content[at : at + size].clone().view(dtype).reshape(shape)))
            at += size
        found.append((dict(named[:predictions]), dict(named[predictions:])))
    return found
