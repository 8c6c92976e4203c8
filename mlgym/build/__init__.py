"""From configuration to live components."""
