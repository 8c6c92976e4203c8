"""Run, survive, understand and reproduce a grid of deep-learning experiments."""

from mlgym.cli import run

__all__ = ["run"]
