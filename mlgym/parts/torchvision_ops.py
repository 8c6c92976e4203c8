"""Import this before torchvision or torchmetrics (which imports torchvision when it is installed).

torchvision's published wheel is built for CUDA and its import expects two operators that its binary registers;
beside a CPU-only torch the binary cannot load and the import fails with "operator torchvision::nms does not
exist". Declaring the two (without an implementation: nothing here calls them) lets the import pass.
"""

from __future__ import annotations

import torch

_LIBRARY: torch.library.Library | None = None  # the declarations live as long as this object


def _declare() -> None:
    global _LIBRARY  # noqa: PLW0603 (once per process, like the registration it keeps alive)
    if torch.version.cuda is not None or _LIBRARY is not None:
        return
    try:
        import torchvision  # noqa: F401
    except (RuntimeError, OSError):
        _LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
        _LIBRARY.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARY.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    except ImportError:
        return  # not installed at all: nothing to repair


_declare()
