"""A program for the tests that becomes its own fork server: `python hosted.py LOG WHAT`.

In the first child: has a child forked that writes to LOG, says which process is which, and does WHAT.
"""

import os
import sys
import time
from pathlib import Path

from psephos.platform.forkserver import ForkedProcess
from psephos.platform.forkserver.host import become_fork_server, fork_server_above, is_first, start_of_first


def main(log: str, what: str) -> None:
    server = fork_server_above()
    assert server is not None
    child = ForkedProcess(server, "a child", "program", ["describe" if what == "describe" else "deaf"], Path(log))
    child.start()
    print(os.getpid(), child.pid, flush=True)
    match what:
        case "describe":
            sys.exit(child.wait(10))
        case "exit":
            sys.exit(7)
        case "close":
            server.close()
            sys.exit(0 if child.wait(10) == -9 else 1)
        case "wait":
            time.sleep(60)


if __name__ == "__main__":
    if not is_first():
        become_fork_server(["json"], {}, start_of_first("the first", "hosted", sys.argv[1:]))
    main(*sys.argv[1:])
