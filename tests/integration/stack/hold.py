"""Holds a stack in a folder until it is asked to stop: ``python hold.py FOLDER``. Prints the servers' pids."""

import sys
from pathlib import Path

from psephos.platform.child_process import first_to_end
from psephos.platform.signals import stop_requests
from psephos_lab.servers import Backends, StackError


def main(folder: Path) -> None:
    with stop_requests() as stop, Backends(folder, dynamodb_in_memory=True) as backends:
        servers = [*backends.kafka.brokers, backends.redis, backends.dynamodb]
        print(*(server.process.pid for server in servers), flush=True)
        first_to_end([server.process for server in servers], stop)
    print("stopped", flush=True)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except StackError as error:
        sys.exit(f"psephos: {error}")
