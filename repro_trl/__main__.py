"""`python -m repro_trl`, and so `accelerate launch -m repro_trl`: the command `repro-trl`."""

import sys

from .cli import main

sys.exit(main())
