"""`python -m psephos_lab.class_archives`, which `make setup` runs: makes archives of the servers' classes, once.

A server that was started to write one does so when it is stopped gracefully. With the archive a broker starts with
2.3 s of CPU instead of 4.2 s, DynamoDB Local with 1.5 s instead of 2.7 s.
"""

import sys
import tempfile
from pathlib import Path

from psephos_lab.errors import StackError
from psephos_lab.java import ensure_jars
from psephos_lab.ports import free_port
from psephos_lab.servers import QUICK_JAVA, DynamoDBLocal, Kafka, KafkaBroker

#: Seconds for the virtual machine to write its archive: it takes 4 on an otherwise idle machine.
_WRITE_TIMEOUT = 120.0


def ensure_archives() -> None:
    """Makes the missing archives. Raises StackError if a server did not start, or stopped without an archive."""
    jars = ensure_jars()
    with tempfile.TemporaryDirectory(prefix="classes-", dir=jars.folder) as temporary:
        folder = Path(temporary)
        if not jars.kafka_archive.exists():
            _write(Kafka([free_port()], folder / "kafka", folder, jars).brokers[0], jars.kafka_archive)
        if not jars.dynamodb_archive.exists():
            server = DynamoDBLocal(free_port(), folder / "dynamodb", folder, jars, in_memory=True)
            _write(server, jars.dynamodb_archive)


def _write(server: KafkaBroker | DynamoDBLocal, archive: Path) -> None:
    """Writes an archive, which appears by a rename: another process finds it whole or not at all."""
    written = server.folder.parent / archive.name
    server.java_options = (*QUICK_JAVA, f"-XX:ArchiveClassesAtExit={written}", "-Xlog:cds*=off")
    server.start()
    server.wait_ready()
    server.process.stop(_WRITE_TIMEOUT)
    if not written.exists():
        raise StackError(f"{server.name} wrote no archive of its classes: {server.process.last_words()}")
    written.replace(archive)


if __name__ == "__main__":
    try:
        ensure_archives()
    except StackError as error:
        sys.exit(f"psephos: {error}")
