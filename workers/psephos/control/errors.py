"""What may go wrong in the life of a session, besides servers that are away."""

from psephos.platform.errors import FAILED, PsephosError


class LifecycleError(PsephosError):
    """This step may not be taken now. The message is one line: why, and what to do."""

    exit_code = FAILED


class Stopped(PsephosError):
    """Whoever runs the step asked it to stop. Run it again to go on."""

    exit_code = FAILED
