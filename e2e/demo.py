"""`make demo-cluster`: a real cluster with the product in it, for a person to open, vote in, and break.

Ctrl-C ends the watching; the cluster stays until `make cluster-down`. `--once` ends when the election is decided.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from e2e.burlington import BALLOTS, NAME, apply_example, ballots
from e2e.deploy import HTTP_PORT, PROMETHEUS_PORT, deploy, say
from e2e.kube import ROOT, Failed, environment, get, kubectl, told
from e2e.outside import Traffic, wait_published
from e2e.sessions import Session, in_seconds, place

PLACE = "demo"
RATE = 150.0  # ballots a second: an election of a minute
NOTICE_S = 15.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="make demo-cluster", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end when the election is decided")
    once = parser.parse_args().once
    try:
        deploy(tls=False)
        lunch, burlington = begin()
        tell(lunch, burlington)
        watch(burlington, once)
    except Failed as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        pass
    say("the cluster stays: `make cluster-down` ends it")


def begin() -> tuple[Session, Session]:
    """Two sessions: one to vote in, one whose voters come by themselves. Those of a demo before are gone."""
    if get("namespace", PLACE) is not None:
        say("ending the demo of before")
        kubectl("delete", "namespace", PLACE, "--timeout=120s", timeout=130)
    place(PLACE, None)
    kubectl("apply", "-n", PLACE, "-f", str(ROOT / "manifests/examples/sessions/single-choice.yaml"))
    lunch = Session("lunch", PLACE, tls=False)
    burlington = apply_example(PLACE, tls=False, deletionPolicy="Delete")
    lunch.wait("Open")
    burlington.wait("Open")
    for session in (lunch, burlington):
        wait_published(None, session)
    return lunch, burlington


def tell(lunch: Session, burlington: Session) -> None:
    lines = {
        "vote yourself": f"{lunch.page}/vote",
        "its results": lunch.page,
        "an election": f"{burlington.page}   ({BALLOTS:,} ballots of 2009, then the recount)",
        "Prometheus": f"http://127.0.0.1:{PROMETHEUS_PORT}/targets",
        "kubectl": 'eval "$(e2e/cluster/env)"; kubectl get pods -A; kubectl psephos results lunch -n demo',
        "break it": f"kubectl delete pod -n {PLACE} --all --force; and look again",
    }
    print()
    for what, where in lines.items():
        print(f"  {what:<14} {where}")
    print(
        f"\n  Browsers and curl take names below `localhost` for this machine; port {HTTP_PORT} is the ingress.\n"
    )
    sys.stdout.flush()


def watch(burlington: Session, once: bool) -> None:
    """`kubectl get vs -w`, while the election goes its way."""
    deciding = threading.Thread(target=decide, args=(burlington,), daemon=True)
    deciding.start()
    shown = subprocess.Popen(["kubectl", "get", "vs", "-n", PLACE, "-w"], env=environment())
    try:
        if once:
            deciding.join()
        else:
            shown.wait()
    finally:
        shown.terminate()
        shown.wait()


def decide(burlington: Session) -> None:
    """Every ballot through the ingress, then the end."""
    with tempfile.TemporaryDirectory() as folder:
        with Traffic(None, burlington, ballots(), Path(folder) / "journal", rate=RATE) as traffic:
            traffic.finish()
        say(f"{traffic.acknowledged:,} ballots are acknowledged; voting ends in {NOTICE_S:.0f} s")
    burlington.extend(in_seconds(NOTICE_S))
    burlington.wait("Final")
    say(f"{NAME} is Final")


if __name__ == "__main__":
    with told():
        main()
