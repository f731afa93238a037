"""`psephos serve`: all roles of one session as child processes, for small votes and for the local stack.

`layout.py` says which processes with which settings (pure), `supervisor.py` starts them, starts again what dies,
and stops them in order, `auditing.py` audits by the session's schedule, `main.py` is the command.
"""

from psephos.serve.auditing import Auditor
from psephos.serve.layout import RoleProcess, admin_ports, layout, own_admin_port
from psephos.serve.supervisor import RoleFailed, Supervisor

__all__ = ["Auditor", "RoleFailed", "RoleProcess", "Supervisor", "admin_ports", "layout", "own_admin_port"]
