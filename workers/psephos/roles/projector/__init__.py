"""The projector: from absolute tallies to the newest result frame in Redis.

Everything it holds can be derived again from the ledger's heads, the tallies topic and the control topic, so
it keeps nothing on disk and two projectors do no harm. It may read the ledger and the log and write the
projection, nothing else.
"""
