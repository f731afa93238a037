"""The model check: real tally workers and the real closing protocol on simulated servers.

`processes`, `kafka`, `dynamodb` and `disk` stand in for the libraries below the code under check; `world` holds
one history and judges it; `machine` chooses what happens; `mutants` are mistakes that must be caught. The oracle
knows of votes what the recount's own code and a plain reader of a few lines know, and nothing from the tally.
"""
