"""scikit-learn's wine data as a data set of mlgym, and a small network for rows of numbers."""

from pathlib import Path

import torch
from torch import nn

from mlgym.parts.datasets import Columns


def wine(storage: Path, split: str) -> Columns:
    """178 wines: 13 measurements and, as column 13, a category (light, medium or strong by its alcohol)."""
    from sklearn.datasets import load_wine

    values, targets = load_wine(return_X_y=True)
    samples = torch.from_numpy(values).float()
    strength = torch.bucketize(samples[:, 0].contiguous(), torch.tensor([12.5, 13.5])).float()
    return Columns(torch.cat([samples, strength.unsqueeze(1)], 1), torch.from_numpy(targets).long())


class Classifier(nn.Module):
    """Rows [batch, features] to logits [batch, classes]; 13 measurements and 3 strengths make 16 features."""

    def __init__(self, hidden: int = 16, classes: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(rows)
        return logits
