"""stub"""


def write() -> str:
    return "stub"
