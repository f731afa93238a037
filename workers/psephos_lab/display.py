"""Display of a stack and of an election in progress, for people. All of it goes to standard error."""

import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live

from psephos.client.bars import Frame, bars, result_line
from psephos.client.http import NoAnswer, request

_LOOK_S = 0.4
_LINE_S = 5.0
_WIDTH = 14


class Display:
    """Shows progress, one line per event."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._begun = time.monotonic()

    def news(self, part: str, text: str) -> None:
        """Prints one line, with the seconds since the beginning; `part`: where it is from."""
        seconds = time.monotonic() - self._begun
        self.console.print(f"{seconds:6.1f} s  {part:<{_WIDTH}}  {text}", markup=False, soft_wrap=True)


class LiveResults:
    """The gateway's results, until `__exit__`: bars on a terminal, elsewhere a line now and then."""

    def __init__(self, display: Display, url: str, labels: Mapping[str, str], title: str) -> None:
        self._display = display
        self._url = f"{url}/results"
        self._labels = labels
        self._title = title
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        if self._display.console.is_terminal:
            self._show_bars()
            return
        while not self._stopping.wait(_LINE_S):
            frame = self._frame()
            if frame is not None:
                self._display.news("results", result_line(frame, self._labels))

    def _show_bars(self) -> None:
        with Live(console=self._display.console, auto_refresh=False) as live:
            while not self._stopping.wait(_LOOK_S):
                self._update(live)
            self._update(live)

    def _update(self, live: Live) -> None:
        frame = self._frame()
        if frame is not None:
            live.update(bars(frame, self._labels, self._title), refresh=True)

    def _frame(self) -> Frame | None:
        try:
            answer = request(self._url, timeout_s=2.0)
        except NoAnswer:
            return None
        return answer.body if answer.status == 200 else None
