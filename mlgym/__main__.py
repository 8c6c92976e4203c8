"""`python -m mlgym` is `mlgym`."""

import sys

from mlgym.cli import main

sys.exit(main())
