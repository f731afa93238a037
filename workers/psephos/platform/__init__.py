"""Basics of every process, whatever its purpose: settings, child processes, signals, time, files, logs, probes.

Nothing here knows sessions, votes, Kafka, the ledger or Redis. It imports no other package of Psephos.
"""
