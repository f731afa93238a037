"""What a session, a ballot, a count and a result are. Pure: no I/O, no clock, no randomness."""
