"""The tally: the exactly-once core. Reads votes, decides, writes ledger blocks, publishes absolute tallies.

`decide.py` is pure: records and the previous state in, a block out. `store.py` is the local dedup store (LMDB),
`partition.py` takes one partition from its ledger head to running, and `worker.py` is the round that a newcomer
can read aloud: fetch, decide, put, commit, publish.
"""
