"""What may go wrong in the life of a session, besides servers that are away."""


class LifecycleError(Exception):
    """This step may not be taken now. The message is one line: why, and what to do."""


class Stopped(Exception):
    """Whoever runs the step asked it to stop. Run it again to go on."""
