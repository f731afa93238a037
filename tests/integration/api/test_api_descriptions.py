"""What the doors say of themselves, held against what they do, by requests that schemathesis makes from it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from jsonschema_rs import validator_for
from tests.integration.readside.conftest import fetch, running
from tests.integration.readside.watching import Events, Socket
from tests.integration.voting.conftest import BALLOTS, Voting

from psephos_lab.servers import Backends

HOOKS = Path(__file__).with_name("hooks.py")
CREDENTIAL = "gateway-credential-0123456789"
EXAMPLES = 40  # an operation; always the same ones


@pytest.fixture(scope="module", params=["score", "approval"])
def voting(
    backends: Backends, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Voting]:
    """Ingest, tally, projector and gateway of one session; no limits for voters, who are few here."""
    folder = tmp_path_factory.mktemp("api")
    credential = folder / "credential"
    credential.write_text(CREDENTIAL)
    with running(backends, folder, {"ballot": BALLOTS[request.param]}) as session:
        session.start("projector")
        yield Voting(session, batch_credential_file=credential, ingest_voter_rate=0)


def examine(url: str, folder: Path, *, authorization: str = "", only: str = "", without: str = "") -> int:
    """Runs schemathesis on a door; how many requests it made. Fails unless every check holds.

    `without`: checks that can't hold there, separated by commas.
    """
    program = Path(sys.executable).with_name("schemathesis")
    assert program.exists(), "schemathesis is not installed; `make setup` installs what is missing"
    arguments = ["run", f"{url}/v1/openapi.json", "--max-examples", str(EXAMPLES)]
    arguments += ["--generation-deterministic", "--no-color"]
    arguments += ["--phases", "examples,coverage,fuzzing", "--checks", "all", "--continue-on-failure"]
    arguments += ["--header", f"Authorization: Bearer {authorization}"] if authorization else []
    arguments += ["--include-operation-id", only] if only else []
    arguments += ["--exclude-checks", without] if without else []
    done = subprocess.run(
        [program, *arguments],
        env={**os.environ, "SCHEMATHESIS_HOOKS": str(HOOKS), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=280,
    )
    report = done.stdout + done.stderr
    assert done.returncode == 0, report[-12_000:]
    made = re.search(r"(\d+) generated", report)
    assert made, report[-12_000:]
    return int(made[1])


def test_the_gateway_does_what_its_description_says(voting: Voting, tmp_path: Path) -> None:
    voting.readside.append(0, [])
    # No schema can say which receipts are genuine.
    assert examine(voting.gateway.url, tmp_path, without="positive_data_acceptance") > 100


def test_ingest_does_what_its_description_says_of_votes(voting: Voting, tmp_path: Path) -> None:
    url, token = f"http://127.0.0.1:{voting.ingest_port}", voting.token("tester", expires_in_s=3600)
    # The token is in every request; that it is needed, the check `ignored_auth` sees.
    assert examine(url, tmp_path, authorization=token, only="castVote", without="missing_required_header") > 50


def test_ingest_does_what_its_description_says_of_batches(voting: Voting, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{voting.ingest_port}"
    # Each line has an answer of its own, a bad one too.
    assert (
        examine(url, tmp_path, authorization=CREDENTIAL, only="castVotes", without="negative_data_rejection") > 30
    )


async def test_streamed_frames_are_what_asyncapi_says(voting: Voting, tmp_path: Path) -> None:
    document = fetch(f"{voting.gateway.url}/v1/asyncapi.json").json
    payload = document["components"]["messages"]["frame"]["payload"]["$ref"].rpartition("/")[2]
    schema = validator_for(document["components"]["schemas"][payload])
    addresses = {name: voting.gateway.url + channel["address"] for name, channel in document["channels"].items()}
    async with Socket(addresses["live"].replace("http", "ws")) as live, Events(addresses["events"]) as events:
        for watcher in (live, events):
            frame = await watcher.until(lambda _: True, "a frame")
            schema.validate(frame)
            assert not schema.is_valid({**frame, "more": 1}), "nothing that is not described"
