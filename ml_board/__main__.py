"""`python -m ml_board`."""

import sys

from ml_board.cli import main

sys.exit(main())
