"""Python programs that share memory: forked from one process that has imported their modules already.

Five processes that run the same libraries hold five copies of them. A fork shares its parent's pages until one of
the two writes to them, and starts in milliseconds, since nothing is left to import.

`client.py` is the side of the parent, whose threads and secrets must not be forked: it executes the fork server,
asks it to start and to signal children, and learns how they end. `server.py` is the fork server: one thread, no
client of any server, none of the parent's variables. `child.py` makes a forked process what `python -m MODULE`
would be, with an environment and a log file of its own. `messages.py` is what the two say to each other.

Linux sends the parent-death signal to the children of a process that ends, however it ends. So nothing is left
when the parent is killed: the fork server ends with the parent, and its children end with the fork server.
"""

from psephos.platform.forkserver.client import ForkedProcess, ForkServer, can_fork, python_program

__all__ = ["ForkServer", "ForkedProcess", "can_fork", "python_program"]
