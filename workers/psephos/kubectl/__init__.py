"""`kubectl psephos`: a session's results and orders, from the command line that platform teams have open anyway.

Everything goes through `kubectl` itself, so all of kubectl's login methods work here, and no user needs more
rights than the cluster's roles give. Orders are annotations and the spec, as anyone could set them by hand; the
operator obeys them.
"""

from psephos.kubectl.app import main

__all__ = ["main"]
