"""The fault suite: every fault that Psephos promises to survive, done to real servers and real processes.

A test that has not seen its fault's path run, by a counter, a log line or the ledger, fails. The judge is
`oracle.py`. `make faults` runs everything; `make test` a selection of a few minutes.
"""
