"""scikit-learn's wine data as a data set of mlgym, and a small network for rows of numbers."""

from pathlib import Path

import torch
from torch import nn

from mlgym.parts.datasets import Columns


def wine(storage: Path, split: str) -> Columns:
    """178 wines of 3 cultivars, 13 measurements each."""
    from sklearn.datasets import load_wine

    values, targets = load_wine(return_X_y=True)
    return Columns(torch.from_numpy(values).float(), torch.from_numpy(targets).long())


class Classifier(nn.Module):
    """Rows [batch, features] to logits [batch, classes]."""

    def __init__(self, features: int, classes: int, hidden: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(rows)
        return logits
