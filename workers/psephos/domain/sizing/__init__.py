"""Computes a session's needs from votes per second and viewers: pods, partitions, table, log, network. Pure.

One set of rules: the operator sizes workloads with `pods`, and `psephos size` shows people the same numbers and
what they cost, with `estimate`. Every measured figure is in `figures`, with its origin.
"""

from psephos.domain.sizing.estimate import Estimate, estimate
from psephos.domain.sizing.pods import STORE_GIB, VIEWERS_PER_GATEWAY, Pods, Sizes, sizes

__all__ = ["STORE_GIB", "VIEWERS_PER_GATEWAY", "Estimate", "Pods", "Sizes", "estimate", "sizes"]
