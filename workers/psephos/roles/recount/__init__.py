"""The recount: reads the votes topic and the ledger again and reports whether they agree, record by record.

It shares the codecs, the ballot rules and the counting methods with the tally, but not the decisions: `examine`
decides each record by code of its own, and `compare` checks the ledger's blocks against that; both are pure. Its
totals come from the log alone, never from the ledger. `seal` combines the verdicts into the signed result.
"""
