"""The session that a role serves, from the file that its settings name."""

from psephos.domain.session import Session, SessionError, parse_session
from psephos.platform.settings import Settings, SettingsError


def load_session(settings: Settings) -> Session:
    """Reads the session's YAML. Raises SettingsError naming the file and each problem."""
    try:
        return parse_session(settings.session_file.read_bytes())
    except OSError as error:
        raise SettingsError(f"PSEPHOS_SESSION_FILE: {settings.session_file}: {error.strerror}") from None
    except SessionError as error:
        raise SettingsError(f"{settings.session_file}: {error}") from None
