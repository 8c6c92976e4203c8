"""The server and dashboard over the event log. Imports nothing of mlgym but errors, specs and record."""
