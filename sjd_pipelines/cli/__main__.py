"""`python -m sjd_pipelines.cli`; and `python PATH/TO/sjd_pipelines/cli`, from a folder that is not installed."""

import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sjd_pipelines.cli import main

sys.exit(main())
