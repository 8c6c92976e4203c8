"""Events, journals and what is folded from them: no torch, no web. Imports errors, specs and schema only."""
