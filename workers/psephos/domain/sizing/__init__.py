"""From votes a second and viewers to what a session needs: pods, partitions, table, log, network. Pure.

One set of rules: the operator sizes workloads by `pods`, and `psephos size` shows people the same numbers and what
they cost, by `estimate`. Every figure that was measured stands in `figures`, with its origin.
"""

from psephos.domain.sizing.estimate import Estimate, estimate
from psephos.domain.sizing.pods import STORE_GIB, VIEWERS_PER_GATEWAY, Pods, Sizes, sizes

__all__ = ["STORE_GIB", "VIEWERS_PER_GATEWAY", "Estimate", "Pods", "Sizes", "estimate", "sizes"]
