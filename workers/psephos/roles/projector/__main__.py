"""`python -m psephos.roles.projector`, configured by the environment like `psephos projector`."""

import sys

from psephos.platform.program import run_program
from psephos.platform.settings import load_settings
from psephos.roles.projector.main import run

sys.exit(run_program("psephos projector", lambda: run(load_settings())))
