"""`python -m psephos.roles.gateway`, configured by the environment like `psephos gateway`."""

import sys

from psephos.platform.program import run_program
from psephos.platform.settings import load_settings
from psephos.roles.gateway.main import run

sys.exit(run_program("psephos gateway", lambda: run(load_settings())))
