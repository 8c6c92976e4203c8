"""Trees of plain data and tensors as files that hold no code: safetensors, with the tree as JSON in its metadata.

`freeze` copies a tree out of a training's way (the only part that a training waits for); what it returns can be
written by another thread. What comes back is equal bit for bit: numbers of every size and kind, tuples, keys that are
not strings, arrays of numpy, tensors that share memory (each then has its own).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from safetensors import safe_open

from mlgym.errors import DamagedError, InputError

_TAG = "$"
_SMALL = 4 << 20
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
_PAIRS: dict[str, type] = {"dict": dict, "Counter": Counter, "OrderedDict": OrderedDict}


class Frozen(NamedTuple):
    """A copy of a tree: its shape as JSON, and its tensors by name, in the memory of the CPU."""

    tree: str
    tensors: dict[str, torch.Tensor]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


class _Freezer:
    def __init__(self, reuse: dict[str, torch.Tensor]) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._reuse = reuse

    def encode(self, value: Any, path: tuple[str, ...]) -> Any:
        if value is None or type(value) in (bool, str, int):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {_TAG: "float", "v": repr(value)}
        if isinstance(value, torch.Tensor):
            return self._tensor(value, path)
        if isinstance(value, np.ndarray | np.generic):
            array = np.asarray(value)
            if array.dtype.kind not in "biufc":
                raise _unknown(value, path)
            if isinstance(value, np.generic):
                return {_TAG: "scalar", "v": array.tobytes().hex(), "dtype": array.dtype.str}
            raw = torch.from_numpy(np.frombuffer(array.tobytes(), np.uint8).copy())
            name = self._keep(raw, path)
            return {_TAG: "array", "v": name, "dtype": array.dtype.str, "shape": list(array.shape)}
        # Exactly these types: what comes back of a subclass would be something else.
        if type(value) is list:
            return [self.encode(entry, (*path, str(i))) for i, entry in enumerate(value)]
        if type(value) in (tuple, torch.Size):
            return {_TAG: "tuple", "v": [self.encode(entry, (*path, str(i))) for i, entry in enumerate(value)]}
        if isinstance(value, bytes):
            return {_TAG: "bytes", "v": value.hex()}
        if type(value) is set:
            return {_TAG: "set", "v": [self.encode(entry, path) for entry in value]}
        if type(value) in (dict, Counter, OrderedDict):
            return self._dict(value, path)
        raise _unknown(value, path)

    def _dict(self, value: dict[Any, Any], path: tuple[str, ...]) -> Any:
        kind = "Counter" if isinstance(value, Counter) else "OrderedDict" if isinstance(value, OrderedDict) else "dict"
        if kind != "Counter" and all(isinstance(key, str) for key in value) and _TAG not in value:
            entries = {key: self.encode(entry, (*path, key)) for key, entry in value.items()}
            return entries if kind == "dict" else {_TAG: kind, "v": [[k, v] for k, v in entries.items()]}
        pairs = [[self.encode(k, path), self.encode(entry, (*path, str(k)))] for k, entry in value.items()]
        return {_TAG: kind, "v": pairs}

    def _tensor(self, value: torch.Tensor, path: tuple[str, ...]) -> Any:
        value = value.detach()
        if value.is_complex():
            return {_TAG: "complex", "v": self._tensor(torch.view_as_real(value), path)}
        if value.dtype not in _NAMES or value.layout is not torch.strided:
            raise _unknown(value, path)
        return {_TAG: "tensor", "v": self._keep(value, path)}

    def _keep(self, value: torch.Tensor, path: tuple[str, ...]) -> str:
        stem = name = ".".join(path) or "tensor"
        number = 1
        while name in self.tensors:
            number += 1
            name = f"{stem}#{number}"
        kept = self._reuse.get(name)
        if kept is not None and kept.shape == value.shape and kept.dtype == value.dtype:
            kept.copy_(value)  # memory that is there already: new pages cost more than the copy
        else:
            kept = torch.empty(value.shape, dtype=value.dtype).copy_(value)
        self.tensors[name] = kept
        return name


def _unknown(value: Any, path: tuple[str, ...]) -> InputError:
    what = f"a tensor of {value.dtype}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
    return InputError(
        f"{'.'.join(path)} is {what}, which a checkpoint cannot hold: give its owner the methods state_dict and "
        "load_state_dict, made of numbers, strings, lists, mappings and tensors"
    )


def freeze(tree: Any, reuse: Frozen | None = None) -> Frozen:
    """A copy of `tree`, written over the tensors of `reuse` where they fit. Raises `InputError` for other objects."""
    freezer = _Freezer(reuse.tensors if reuse else {})
    return Frozen(json.dumps(freezer.encode(tree, ()), allow_nan=False), freezer.tensors)


def thaw(tree: str, tensors: dict[str, torch.Tensor]) -> Any:
    """The tree that was frozen."""

    def decode(value: Any) -> Any:
        if isinstance(value, list):
            return [decode(entry) for entry in value]
        if not isinstance(value, dict):
            return value
        kind = value.get(_TAG)
        if kind is None:
            return {key: decode(entry) for key, entry in value.items()}
        found = value["v"]
        if kind == "float":
            return float(found)
        if kind == "tensor":
            return tensors[found]
        if kind == "complex":
            return torch.view_as_complex(decode(found))
        if kind == "array":
            array = np.frombuffer(tensors[found].numpy().tobytes(), np.dtype(value["dtype"]))
            return array.reshape(value["shape"]).copy()
        if kind == "scalar":
            return np.frombuffer(bytes.fromhex(found), np.dtype(value["dtype"]))[0]
        if kind == "bytes":
            return bytes.fromhex(found)
        if kind in ("tuple", "set"):
            return (tuple if kind == "tuple" else set)(decode(entry) for entry in found)
        return _PAIRS[kind]({decode(key): decode(entry) for key, entry in found})

    return decode(json.loads(tree))


def packed(tree: Any) -> bytes:
    """A tree as bytes, for another process."""
    frozen = freeze(tree)
    tensors = {
        name: (
            str(tensor.dtype).removeprefix("torch."),
            tensor.shape,
            tensor.reshape(-1).view(torch.uint8).numpy().tobytes(),
        )
        for name, tensor in frozen.tensors.items()
    }
    return msgspec.msgpack.encode((frozen.tree, tensors))


def unpacked(data: bytes) -> Any:
    """The tree that was packed."""
    tree, tensors = msgspec.msgpack.decode(data)
    return thaw(
        tree,
        {
            name: torch.tensor(list(content), dtype=torch.uint8).view(getattr(torch, dtype)).reshape(shape)
            for name, (dtype, shape, content) in tensors.items()
        },
    )


# --- files --------------------------------------------------------------------------------------------------


def chunks(frozen: Frozen) -> Iterable[bytes | memoryview]:
    """The bytes of a safetensors file. The library's own writer copies every tensor once more."""
    header: dict[str, Any] = {"__metadata__": {"tree": frozen.tree}}
    end = 0
    for name, tensor in frozen.tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    parts = (tensor.reshape(-1).view(torch.uint8).numpy().data for tensor in frozen.tensors.values() if tensor.nbytes)
    if end < _SMALL:
        yield b"".join(parts)  # many small writes would stop the training as often
    else:
        yield from parts


def write(path: Path, content: Iterable[bytes | memoryview]) -> tuple[int, str]:
    """Write a new file (not yet durable); returns its size and sha256."""
    digest = hashlib.sha256()
    size = 0
    with path.open("xb", buffering=0) as file:
        for chunk in content:
            rest = memoryview(chunk)
            digest.update(rest)
            size += len(rest)
            while rest:
                rest = rest[file.write(rest) :]
    return size, digest.hexdigest()


def read(path: Path) -> Any:
    """The tree in a file that `chunks` made. Raises `DamagedError`."""
    try:
        with safe_open(path, framework="pt") as file:
            # Copied to where torch puts tensors: some sums depend on the alignment, and files have none.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (it is no dict)
            return thaw(file.metadata()["tree"], tensors)
    except Exception as error:  # safetensors has exceptions of its own, and damage can look like anything
        raise DamagedError(f"{path}: not a file of a checkpoint: {error}") from None
