"""The recount: reads the votes topic and the ledger anew and says whether they agree, record by record.

It shares with the tally the codecs, the ballot rules and the counting methods. It does not share the decisions:
`examine` decides each record by code of its own, `compare` holds the ledger's blocks against that; both are
pure. Its totals come from the log alone, never from the ledger. `seal` combines the verdicts into the signed
result.
"""
