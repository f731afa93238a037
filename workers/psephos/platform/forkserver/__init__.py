"""Python programs that share memory: forked from one process that has already imported their modules.

Five processes that run the same libraries hold five copies of them. A fork shares its parent's pages until one of
the two writes to them, and starts in milliseconds, since nothing is left to import.

`client.py` is the side of the parent, whose threads and secrets must not be forked: it executes the fork server,
asks it to start and to signal children, and learns how they end. `server.py` is the fork server: one thread, no
client of any server, none of the parent's variables. `child.py` turns a forked process into what
`python -m MODULE` would be, with its own environment and log file. `messages.py` defines the messages between the
two.

Linux sends the parent-death signal to the children of a process that ends, however it ends. So nothing is left
when the parent is killed: the fork server ends with the parent, and its children end with the fork server.
"""

from psephos.platform.forkserver.client import ForkedProcess, ForkServer, can_fork, python_program

__all__ = ["ForkServer", "ForkedProcess", "can_fork", "python_program"]
