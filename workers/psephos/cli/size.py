"""`psephos size`: what a session of a given size needs, before it is applied."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psephos.domain.sizing import Estimate, Pods

MOST_VOTES, MOST_VIEWERS, MOST_PARTITIONS = 10_000_000, 100_000_000, 64


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command()(size)


def size(
    votes_per_second: Annotated[
        int, typer.Option(min=1, max=MOST_VOTES, help="Votes a second at the peak, as in spec.capacity.")
    ] = 1_000,
    viewers: Annotated[
        int, typer.Option(min=1, max=MOST_VIEWERS, help="Viewers at once at the peak, as in spec.capacity.")
    ] = 1_000,
    partitions: Annotated[
        int | None, typer.Option(min=1, max=MOST_PARTITIONS, help="Of the votes topic; derived without it.")
    ] = None,
    frames_per_second: Annotated[
        float, typer.Option(min=0.01, max=4.0, help="Result frames that a viewer gets while votes come in.")
    ] = 1.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all of it as JSON, with the figures used.")
    ] = False,
) -> None:
    """Say what a session needs: pods, partitions, table, log, network.

    \b
      psephos size --votes-per-second 250000 --viewers 1000000

    The operator sizes workloads by the same rules. docs/sizing.md says where the figures are from.
    """
    from psephos.domain.session import Capacity
    from psephos.domain.sizing import estimate

    capacity = Capacity(votesPerSecond=votes_per_second, viewers=viewers, partitions=partitions)
    found = estimate(capacity, frames_per_second=frames_per_second)
    typer.echo(json.dumps(found.document(), indent=1) if as_json else "\n".join(_lines(found)))


def _lines(found: Estimate) -> Iterator[str]:
    yield f"{found.votes_per_second:,} votes a second and {found.viewers:,} viewers need"
    yield ""
    yield from _pods(found)
    yield ""
    log, table, audience = found.log, found.table, found.audience
    yield (
        f"  log       {log.partitions} partitions, {log.mb_per_second:,.1f} MB/s in, up to"
        f" {log.requests_per_second:,} produce requests a second;"
        f" {log.mb_per_million_votes:,.0f} MB on disks a million votes"
    )
    warm = "; warm a new table up first" if table.warm else ""
    yield (
        f"  table     {table.write_units:,} write units a second, {table.a_key:,} of one key{warm};"
        f" {table.write_units_per_million_votes:,} units and {table.mb_per_million_votes:,.0f} MB a million votes"
    )
    yield (
        f"  viewers   {audience.gbit_per_second:,.3g} Gbit/s with {audience.frames_per_second:g} frames a second"
        f" for each, {audience.memory_gb:,.3g} GB of memory"
    )
    yield f"  recount   {found.recount_seconds_per_million_votes:,.1f} s a million votes"
    yield ""
    yield "What the bill grows with, the greatest first:"
    for driver in found.drivers:
        yield f"  {driver.what:<18} {_amount(driver.amount):>10} {driver.unit:<15} {driver.grows_with}"


def _pods(found: Estimate) -> Iterator[str]:
    pods = found.pods
    if pods.small:
        yield f"  one pod with all roles (`psephos serve`), {_asks(pods.serve)}"
        return
    for name, role in (
        ("ingest", pods.ingest),
        ("tally", pods.tally),
        ("projector", pods.projector),
        ("gateway", pods.gateway),
        ("recount", pods.recount),
    ):
        most = f", up to {role.most}" if role.most > role.replicas else ""
        yield f"  {role.replicas:>3} {name:<9} {_asks(role)} each{most}"


def _amount(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _asks(pods: Pods) -> str:
    return f"{pods.cpu / 1_000:g} cores and {pods.memory:,} MiB"
