"""`python -m psephos.roles.tally`, configured by the environment like `psephos tally`."""

import sys

from psephos.platform.program import run_program
from psephos.platform.settings import load_settings
from psephos.roles.tally.main import run

sys.exit(run_program("psephos tally", lambda: run(load_settings())))
