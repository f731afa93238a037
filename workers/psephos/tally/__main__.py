"""`python -m psephos.tally`, configured by the environment like `psephos tally`."""

import sys

from psephos.running import exit_code
from psephos.tally.main import run
from psephos.tally.publisher import Fenced

try:
    code = exit_code("tally", run)
except Fenced as error:
    sys.stderr.write(f"psephos tally: {error}\n")
    code = 1
sys.exit(code)
