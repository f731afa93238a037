"""A test that is skipped or expected to fail counts as failed: what is not run proves nothing."""

from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped or hasattr(report, "wasxfail"):
        _fail(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped:
        _fail(report)
    return report


def _fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    expected = report.__dict__.pop("wasxfail", None)
    why = f"expected to fail: {expected}" if expected is not None else _reason(report)
    report.outcome = "failed"
    report.longrepr = f"{why}\nA test that is skipped or expected to fail counts as failed."


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Of a skip: (path, line, reason) as pytest has it."""
    return str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
