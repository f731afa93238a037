"""What keeps a recount from being done at all; differences are no errors but findings."""


class RecountError(Exception):
    """The recount can't be done or sealed. The message is one line: why, and what to do."""
