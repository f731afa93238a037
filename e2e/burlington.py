"""The election of Burlington's mayor, 2009: the example as it stands, and all its real ballots."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml

from e2e.kube import ROOT, kubectl
from e2e.outside import Vote
from e2e.sessions import Session
from psephos.domain.ballots import BallotRules
from psephos.domain.session import parse_session
from psephos_lab.ballots import read_ballots

EXAMPLE = ROOT / "manifests" / "examples" / "burlington-2009-irv"
NAME = "burlington-2009-irv"
BALLOTS = 8_984


def apply_example(namespace: str, *, tls: bool = True, **spec: Any) -> Session:
    """With the key of its voters, which the local stack makes by itself; `spec`: further members."""
    document = yaml.safe_load((EXAMPLE / "session.yaml").read_text())
    document["metadata"]["namespace"] = namespace
    document["spec"]["voters"]["tokens"]["secretRef"] = {"name": "voters", "key": "hs256"}
    document["spec"].update(spec)
    kubectl("apply", "-f", "-", stdin=json.dumps(document))
    return Session(NAME, namespace, tls)


def ballots() -> Iterator[Vote]:
    """Every real ballot, by a voter of its own."""
    rules = BallotRules.of(parse_session((EXAMPLE / "session.yaml").read_text()))
    bodies = (kind.body for kind in read_ballots(EXAMPLE / "ballots.csv", rules) for _ in range(kind.voters))
    for number, body in enumerate(bodies):
        yield Vote(f"voter-{number:05d}", body)
