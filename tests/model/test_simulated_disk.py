"""The simulated LMDB is held against the real one: the same calls, the same answers."""

import shutil
from pathlib import Path
from typing import Any

import lmdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.model.disk import Lmdb, Machine
from tests.model.processes import alone

keys = st.sampled_from([b"a", b"b", b"c"])
values = st.binary(max_size=2)
calls = st.lists(
    st.one_of(
        st.tuples(st.just("put"), keys, values),
        st.tuples(st.just("add"), keys, values),
        st.tuples(st.just("note"), keys, values),
        st.tuples(st.sampled_from(["get", "noted"]), keys),
        st.tuples(st.sampled_from(["commit", "abort", "close", "count"])),
    ),
    max_size=30,
)
Call = tuple[Any, ...]


def answers(library: Any, path: str, made: list[Call]) -> list[object]:
    """What these calls answer, each in the write transaction that the last commit, abort or close left behind."""
    found: list[object] = []
    env, voters, info, transaction = opened(library, path)
    for name, *arguments in made:
        match name:
            case "put":
                found.append(transaction.put(*arguments))
            case "add":
                found.append(transaction.put(*arguments, overwrite=False))
            case "note":
                found.append(transaction.put(*arguments, db=info))
            case "get":
                found.append(transaction.get(*arguments))
            case "noted":
                found.append(transaction.get(*arguments, db=info))
            case "count":
                found.append(transaction.stat(voters)["entries"])
            case "close":
                env.close()
                env, voters, info, transaction = opened(library, path)
            case _:
                getattr(transaction, name)()
                transaction = env.begin(write=True, db=voters)
    env.close()
    return found


def opened(library: Any, path: str) -> tuple[Any, Any, Any, Any]:
    env = library.open(path, map_size=1 << 20, max_dbs=2, sync=False, metasync=False)
    voters, info = env.open_db(b"voters"), env.open_db(b"info")
    return env, voters, info, env.begin(write=True, db=voters)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lmdb")


@given(made=calls)
def test_the_simulated_store_answers_as_lmdb_does(made: list[Call], folder: Path) -> None:
    shutil.rmtree(folder / "real", ignore_errors=True)
    (folder / "real").mkdir()
    real = answers(lmdb, str(folder / "real"), made)
    assert alone(lambda: answers(Lmdb(), "simulated", made), Machine("0")) == real
