"""What is done to the jars of the local stack's servers."""

from psephos_lab.java import without_class_path


def test_a_manifest_loses_its_class_path_and_nothing_else() -> None:
    before = (
        b"Manifest-Version: 1.0\r\nBundle-License: a line that is lo\r\n nger\r\n"
        b"Class-Path: . log4j2.xml lib/a.ja\r\n r lib/b.jar\r\nImplementation-Version: 3.1.0\r\n\r\n"
    )
    assert without_class_path(before) == (
        b"Manifest-Version: 1.0\r\nBundle-License: a line that is lo\r\n nger\r\n"
        b"Implementation-Version: 3.1.0\r\n\r\n"
    )
