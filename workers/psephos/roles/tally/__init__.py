"""The tally: the exactly-once core. Reads votes, decides, writes ledger blocks, publishes absolute tallies.

`decide.py` is pure: records and the state before in, a block out. `store.py` is the local dedup store (LMDB),
`partition.py` one partition's way from its ledger head to running, `worker.py` the round that a newcomer can
read aloud: fetch, decide, put, commit, publish.
"""
