"""`python -m psephos.gateway`, configured by the environment like `psephos gateway`."""

import sys

from psephos.gateway.main import run
from psephos.platform.program import run_program
from psephos.platform.settings import load_settings

sys.exit(run_program("psephos gateway", lambda: run(load_settings())))
