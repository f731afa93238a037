"""A program for the tests of the fork server: `python -m program WHAT`."""

import json
import os
import random
import signal
import sys
import threading
import time


def describe() -> dict[str, object]:
    """What a program can learn about how it was started."""
    return {
        "arguments": sys.argv[1:],
        "main": sys.modules["__main__"].__name__,
        "environment": dict(os.environ),
        "random": random.random(),
        "input": sys.stdin.read(),
        "descriptors": sorted(os.listdir("/proc/self/fd"), key=int)[:-1],  # the last is of this listing
        "signals": [number.name for number in signal.Signals if callable(signal.getsignal(number))],
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "threads": threading.active_count(),
        "group": os.getpgid(0) == os.getpid(),
        "zone": time.tzname[0],
    }


def main(what: str) -> None:
    match what:
        case "describe":
            print(json.dumps(describe()), flush=True)
        case "wait":
            print("up", flush=True)
            time.sleep(60)
        case "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print("up", flush=True)
            time.sleep(60)
        case "exit":
            sys.exit(int(sys.argv[2]))
        case "fail":
            raise EOFError("what the program did not expect")


if __name__ == "__main__":
    main(sys.argv[1])
