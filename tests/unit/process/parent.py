"""A parent for the tests: starts two children, says who they are, stops them in order when asked to.

Run as ``python parent.py LOG_FOLDER``. The first child is started from a thread that ends at once.
"""

import sys
import threading
from pathlib import Path

from psephos.platform.child_process import ChildProcess, first_to_end, stop_in_order
from psephos.platform.signals import stop_requests

CHILD = """
import signal, sys, time
def stop(number, frame):
    print("got", signal.Signals(number).name, flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
print("up", flush=True)
while True:
    time.sleep(1)
"""


def main(folder: Path) -> None:
    children = [
        ChildProcess(name, [sys.executable, "-c", CHILD], folder / f"{name}.log") for name in ("one", "two")
    ]
    with stop_requests() as stop:
        starter = threading.Thread(target=children[0].start)
        starter.start()
        starter.join()
        children[1].start()
        print(*(child.pid for child in children), flush=True)
        ended = first_to_end(children, stop)
        print(f"{ended.name} ended" if ended else "asked to stop", flush=True)
        stop_in_order(children)
        print(*(child.exit_code for child in children), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
