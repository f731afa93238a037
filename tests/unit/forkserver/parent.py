"""A parent for the tests: has a child forked, says who the two are, and waits. Run as `python parent.py LOG`."""

import sys
import time
from pathlib import Path

from psephos.platform.forkserver import ForkedProcess, ForkServer

if __name__ == "__main__":
    server = ForkServer(["json"])
    child = ForkedProcess(server, "a child", "program", ["deaf"], Path(sys.argv[1]))
    child.start()
    print(server.pid, child.pid, flush=True)
    time.sleep(60)
