"""How figures are drawn: plain SVG files that a page can show, one style for all of them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HEADROOM = 1.25  # above the highest point: for it, and the legend
OURS, THEIRS = "#2f6f4f", "#b0b7bd"


def bars(
    path: Path, title: str, unit: str, values: Mapping[str, float], ours: Sequence[str] = ("Psephos",)
) -> None:
    """One bar a name, its value beside it. Names that begin with one of `ours` are coloured."""
    with _axes(path, title, height=1.0 + 0.45 * len(values)) as axes:
        names = list(values)[::-1]
        colours = [OURS if name.startswith(tuple(ours)) else THEIRS for name in names]
        drawn = axes.barh(names, [values[name] for name in names], color=colours)
        axes.bar_label(drawn, labels=[f" {_number(values[name])} {unit}" for name in names])
        axes.margins(x=0.3)
        axes.xaxis.set_visible(False)
        axes.spines[["bottom", "left"]].set_visible(False)
        axes.tick_params(left=False)


def lines(
    path: Path,
    title: str,
    x: str,
    y: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    log_x: bool = False,
) -> None:
    """One line a name through its (x, y) points; y begins at 0."""
    with _axes(path, title, height=3.2) as axes:
        for name, points in series.items():
            axes.plot([at for at, _ in points], [value for _, value in points], marker="o", label=name)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.set_ylim(bottom=0, top=HEADROOM * max(value for points in series.values() for _, value in points))
        if log_x:
            axes.set_xscale("log")
        at = sorted({at for points in series.values() for at, _ in points})
        axes.set_xticks(at, [_number(each) for each in at])
        axes.minorticks_off()
        if len(series) > 1:
            axes.legend(frameon=False, ncols=len(series), loc="upper right")
        axes.grid(axis="y", alpha=0.3)


def _number(value: float) -> str:
    """Three digits or more, no exponent."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


@contextmanager
def _axes(path: Path, title: str, *, height: float) -> Iterator[Any]:
    import matplotlib as mpl  # only who draws needs it

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "psephos", "font.size": 10, "svg.fonttype": "none"})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, height), layout="constrained")
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    yield axes
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
