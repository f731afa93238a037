"""`python -m psephos.projector`, configured by the environment like `psephos projector`."""

import sys

from psephos.projector.main import run
from psephos.running import exit_code

sys.exit(exit_code("projector", run))
