"""The regression example on a Ray cluster of its own: `pip install "mlgym[ray]"`, then
`python run.py --config_path run_config.yml`. With `address: auto` the same runs on a cluster of many machines.
"""

from pathlib import Path

import torch
from torch import nn

from mlgym import run
from mlgym.build.registry import Registry
from mlgym.parts.datasets import Columns


def diabetes(storage: Path, split: str) -> Columns:
    """scikit-learn's 442 patients; the target is scaled to hundreds, so that losses are of the order of one."""
    from sklearn.datasets import load_diabetes

    values, targets = load_diabetes(return_X_y=True)
    return Columns(torch.from_numpy(values).float(), torch.from_numpy(targets).float() / 100)


class Regressor(nn.Module):
    """Rows [batch, 10] to values [batch, 1]."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(10, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = self.layers(rows)
        return values


def blueprint(registry: Registry) -> None:
    registry.dataset("diabetes", diabetes)
    registry.model("regressor", Regressor)


if __name__ == "__main__":
    run(blueprint)
