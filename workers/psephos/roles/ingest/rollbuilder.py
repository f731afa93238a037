"""`python -m psephos.roles.ingest.rollbuilder SOURCE [ETAG SIZE]`: builds a roll file, prints its path, ends.

SOURCE is a path, or the s3:// address of an object whose version ETAG and SIZE identify. All else is settings.
"""

import sys
from pathlib import Path

from psephos.domain.session import STORE_SCHEME
from psephos.platform.settings import Settings, SettingsError, load_settings, read_key
from psephos.roles.ingest.rollfile import FileText, RollAway, Text, UnusableRoll, build

SOUND, UNUSABLE, AWAY = 0, 2, 3  # exit codes


def main(source: str, etag: str = "", size: str = "0") -> int:
    """Returns the exit code; AWAY: the same build may be tried again."""
    try:
        settings = load_settings()
        key = read_key(settings.session_key_file, "SESSION_KEY_FILE")
        text = _text(settings, source, etag, int(size))
        target = build(text, settings.data_dir / "roll", settings.session_uid, key)
    except (UnusableRoll, SettingsError) as error:
        sys.stderr.write(f"{error}\n")
        return AWAY if isinstance(error, RollAway) else UNUSABLE
    sys.stdout.write(f"{target}\n")
    return SOUND


def _text(settings: Settings, source: str, etag: str, size: int) -> Text:
    if not source.startswith(STORE_SCHEME):
        return FileText(Path(source))
    from psephos.roles.ingest.rollobject import (
        object_text,  # half a second of imports that building from a file can do without
    )

    return object_text(settings, source, etag, size)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
