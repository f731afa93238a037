"""The life of a session: prepared, opened, closed, recounted. Used by the local stack and by the operator.

Calls block. Each step can be run again and continues from where the protocol stands: a conditional ledger item or
a log record shows how far it got, never the memory of a process. What follows from orders and from the clock is
decided in `orders`, which is pure. This package changes only the state of a session; counting is not its concern.
"""

from psephos.control.closing import Closing, Drained, close, closing_of, extend
from psephos.control.conductor import Conductor
from psephos.control.errors import LifecycleError, Stopped
from psephos.control.keys import SessionKeys, make_keys, read_keys
from psephos.control.orderbook import OrderBook, Taken, Untaken
from psephos.control.orders import Obeyed, Orders, Voting, obey
from psephos.control.phases import set_phase
from psephos.control.prepare import prepare
from psephos.control.schedule import next_due
from psephos.control.wishes import Wishes

__all__ = [
    "Closing",
    "Conductor",
    "Drained",
    "LifecycleError",
    "Obeyed",
    "OrderBook",
    "Orders",
    "SessionKeys",
    "Stopped",
    "Taken",
    "Untaken",
    "Voting",
    "Wishes",
    "close",
    "closing_of",
    "extend",
    "make_keys",
    "next_due",
    "obey",
    "prepare",
    "read_keys",
    "set_phase",
]
