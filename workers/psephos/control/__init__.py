"""The life of a session: prepared, opened, closed, recounted. One state machine for the operator and for one
machine.

`decide` (pure) names the next step from commands, observed state and time; `Executor` takes it. Each step can be
repeated and continues from where the protocol stands: a conditional ledger item or a log record shows how far it
got, never the memory of a process. The operator and the local controller are loops over these two.

This package changes only the state of a session; counting is not its concern. Calls block.
"""

from psephos.control.command_file import Acknowledgement, CommandFile, NotAcknowledged
from psephos.control.commands import Commands, Decision, Voting, apply_commands
from psephos.control.desired_state import DesiredState
from psephos.control.errors import LifecycleError
from psephos.control.executor import Advanced, Executor
from psephos.control.keys import SessionKeys, make_keys, read_keys
from psephos.control.local_controller import LocalController
from psephos.control.observation import closing_of, observe, sealed_ends
from psephos.control.observed import Closing, ObservedState
from psephos.control.phases import set_phase
from psephos.control.prepare import prepare
from psephos.control.schedule import next_due
from psephos.control.state_machine import Action, Step, decide, recount_due

__all__ = [
    "Acknowledgement",
    "Action",
    "Advanced",
    "Closing",
    "CommandFile",
    "Commands",
    "Decision",
    "DesiredState",
    "Executor",
    "LifecycleError",
    "LocalController",
    "NotAcknowledged",
    "ObservedState",
    "SessionKeys",
    "Step",
    "Voting",
    "apply_commands",
    "closing_of",
    "decide",
    "make_keys",
    "next_due",
    "observe",
    "prepare",
    "read_keys",
    "recount_due",
    "sealed_ends",
    "set_phase",
]
