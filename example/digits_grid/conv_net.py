"""A small convolutional network for pictures of 1x8x8 pixels."""

import torch
from torch import nn


class ConvNet(nn.Module):
    """Two convolutions and a classifier: [batch, 1, 8, 8] to logits [batch, num_classes]."""

    def __init__(self, channels: int = 16, num_classes: int = 10, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels, 2 * channels, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(2 * channels * 4 * 4, num_classes),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(images)
        return logits
