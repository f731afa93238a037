"""`python -m psephos.forkserver`, as `psephos.forkserver.client` starts it."""

import sys

from psephos.forkserver.server import main

main(sys.argv[1:])
