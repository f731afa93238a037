"""Exports of a sealed result: result.json and result.csv, in a folder or a bucket.

The result itself is in the ledger. An export that fails loses nothing: the sealing step ends with a reason, and
running it again exports the same bytes.
"""

from pathlib import Path
from urllib.parse import unquote, urlparse

from psephos.adapters.s3 import Address, ObjectStore, ObjectStoreError, exports_address
from psephos.domain.results import Document, decode_document, encode_document, result_csv
from psephos.domain.session import Session
from psephos.formats.control import Phase
from psephos.platform.files import write_whole
from psephos.platform.logs import get_logger
from psephos.platform.settings import Settings
from psephos.roles.recount.errors import RecountError

JSON, CSV = "result.json", "result.csv"
log = get_logger()


def export(settings: Settings, session: Session, document: Document) -> str:
    """Writes both files to the session's exports.url, otherwise to the data folder; returns the location.

    May be repeated, also by several processes at once. Raises RecountError.
    """
    url = "" if session.spec.exports is None else session.spec.exports.url
    try:
        address = exports_address(url, session.name, settings.session_uid)
        if address is not None and settings.s3_enabled:
            export_to_store(ObjectStore.of(settings), address, session, document)
            return str(address)
    except ObjectStoreError as error:
        raise RecountError(f"the result is sealed, but can't be exported: {error}") from None
    if address is not None:
        log.warning("exports stay in the data folder", url=url, why="PSEPHOS_S3_ENABLED is false")
    folder = exports_folder(settings, session.name, url)
    export_to_folder(folder, session, document)
    return str(folder)


def export_to_store(store: ObjectStore, address: Address, session: Session, document: Document) -> None:
    """Writes both files to the object store. Raises ObjectStoreError.

    NB: result.json comes last, so if it is there, everything is. A final result is never replaced by a disputed
    one: a sealing step from before a repair may finish after the later one.
    """
    there = store.read(address.below(JSON))
    if there is not None and _is_final(there[0]) and document["state"] != Phase.FINAL:
        log.warning("not exported", place=str(address), why="a final result is there already")
        return
    store.put_same(address.below(CSV), result_csv(session, document).encode(), "text/csv; charset=utf-8")
    store.put_same(address.below(JSON), encode_document(document), "application/json")


def export_to_folder(folder: Path, session: Session, document: Document) -> None:
    """Writes both files to a folder. Raises RecountError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / JSON, encode_document(document))
        write_whole(folder / CSV, result_csv(session, document).encode())
    except OSError as error:
        raise RecountError(f"the result is sealed, but can't be exported to {folder}: {error.strerror}") from None


def exports_folder(settings: Settings, name: str, url: str) -> Path:
    """Returns the session's own folder at a file:// URL, otherwise in the data folder."""
    if url.startswith("file://"):
        return Path(unquote(urlparse(url).path)) / name
    return settings.exports_dir / name


def _is_final(content: bytes) -> bool:
    try:
        return bool(decode_document(content).get("state") == Phase.FINAL)
    except ValueError:
        return False
