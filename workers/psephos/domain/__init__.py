"""The domain: sessions, ballots, counts and results. Pure: no I/O, no clock, no randomness."""
