"""scikit-learn's breast cancer data as a data set of mlgym, and a small network for rows of numbers."""

from pathlib import Path

import torch
from torch import nn

from mlgym.parts.datasets import Columns


def cancer(storage: Path, split: str) -> Columns:
    """569 tumours, malignant or benign, 30 measurements each."""
    from sklearn.datasets import load_breast_cancer

    values, targets = load_breast_cancer(return_X_y=True)
    return Columns(torch.from_numpy(values).float(), torch.from_numpy(targets).long())


class Classifier(nn.Module):
    """Rows [batch, features] to logits [batch, classes]."""

    def __init__(self, features: int, classes: int, hidden: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(rows)
        return logits
