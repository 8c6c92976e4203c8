"""Measurements, side by side in one run, quoted as ratios of medians. `make bench` runs them all."""
