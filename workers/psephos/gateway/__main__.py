"""`python -m psephos.gateway`, configured by the environment like `psephos gateway`."""

import sys

from psephos.gateway.main import run
from psephos.running import exit_code

sys.exit(exit_code("gateway", run))
