"""From YAML files to a list of experiments: no torch, no side effects beyond reading the files."""
