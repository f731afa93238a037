"""`psephos serve`: all roles of one session as child processes, for small votes and for the local stack.

`layout.py` lists the processes and their settings (pure), `roles.py` makes them children of a fork server and of a
supervisor, `auditing.py` audits on the session's schedule, `main.py` is the command.
"""

from psephos.roles.serve.layout import RoleProcess, admin_ports, layout, own_admin_port
from psephos.roles.serve.roles import supervise

__all__ = ["RoleProcess", "admin_ports", "layout", "own_admin_port", "supervise"]
