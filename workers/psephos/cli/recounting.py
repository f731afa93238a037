"""Prints the report of a recount."""

import typer

from psephos.cli.output import encode_result
from psephos.roles.recount.report import RecountReport

_SHOWN = 20


def print_report(report: RecountReport, *, as_json: bool) -> None:
    """Prints one JSON object, or some lines for a person."""
    if as_json:
        typer.echo(encode_result(report.to_json()))
        return
    agree = "agree with the ledger" if report.match else f"were compared: {report.difference_count} differences"
    typer.echo(f"{report.session}: {report.state}; {report.log_records:,} records of the log {agree}")
    for difference in report.differences[:_SHOWN]:
        place = "session" if difference.partition is None else f"partition {difference.partition}"
        at = "" if difference.offset is None else f", offset {difference.offset}"
        typer.echo(f"  {place}{at}: {difference.kind}{f' ({difference.detail})' if difference.detail else ''}")
    if report.difference_count > _SHOWN:
        typer.echo(f"  and {report.difference_count - _SHOWN} more")
