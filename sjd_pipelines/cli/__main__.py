"""`python -m sjd_pipelines.cli`."""

import sys

from . import main

sys.exit(main())
