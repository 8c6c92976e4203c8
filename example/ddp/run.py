"""Each experiment trained by two processes together.

    accelerate launch --config_file accelerate.yml run.py --config_path run_config.yml

`python run.py --config_path run_config.yml` does the same in one process, to the same scores.
"""

import torch
from torch import nn

from mlgym import run
from mlgym.build.registry import Registry


class Residual(nn.Module):
    """Convolutions whose result is added to what they are given, [n, channels, height, width]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.GELU(), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = nn.functional.gelu(x + self.layers(x))
        return found


class ResNet(nn.Module):
    """[n, 1, 8, 8] -> logits [n, 10]."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1), *(Residual(channels) for _ in range(blocks)), nn.AdaptiveAvgPool2d(2)
        )
        self.head = nn.Linear(4 * channels, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.layers(x).flatten(1))
        return logits


def blueprint(registry: Registry) -> None:
    registry.model("resnet", ResNet)


if __name__ == "__main__":
    run(blueprint)
