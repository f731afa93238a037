"""Every process needs this, whatever it is for: settings, child processes, signals, time, files, logs, probes.

Nothing here knows sessions, votes, Kafka, the ledger or Redis. It imports no other package of Psephos.
"""
