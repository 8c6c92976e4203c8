"""Running experiments: the loop, the worker around it, the scheduler around the workers."""
