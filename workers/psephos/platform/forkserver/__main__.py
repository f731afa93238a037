"""`python -m psephos.platform.forkserver`, as `psephos.platform.forkserver.client` starts it."""

import sys

from psephos.platform.forkserver.server import main

main(sys.argv[1:])
