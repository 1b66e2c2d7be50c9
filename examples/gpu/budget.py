"""A time limit that is split over parts: each has a deadline, and what one leaves the next one gets."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate

GRACE = 0.25
"""share of the time of the later parts that a part may take before it is stopped"""


class OutOfTime(BaseException):
    """A part was at work for too long. It is no Exception, so that nobody on its way takes it for one of theirs."""


class Budget:
    """Deadlines of parts that come one after the other.

    Args:
        seconds: for all of them, from now on
        shares: of each part, in their order; what counts is their proportion
        clock: tells seconds
    """

    def __init__(self, seconds: float, shares: Mapping[str, float], clock: Callable[[], float] = time.monotonic):
        self.clock, self.begin = clock, clock()
        self.end, total = self.begin + seconds, sum(shares.values())
        ends = [self.begin + seconds * share / total for share in accumulate(shares.values())]
        self.deadlines = dict(zip(shares, ends, strict=True))

    def left(self, part: str) -> float:
        """Seconds until a part has to end; negative when it should have."""
        return self.deadlines[part] - self.clock()

    @contextmanager
    def limit(self, part: str) -> Iterator[None]:
        """Inside, ``OutOfTime`` comes when the part is over its deadline by a ``GRACE`` of what later parts have.

        Parts look at ``left`` and end by themselves; this is for those that hang.
        """
        deadline = self.deadlines[part]
        with alarm(deadline + GRACE * (self.end - deadline) - self.clock()):
            yield


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Inside, ``OutOfTime`` comes after so many seconds, or when an alarm around this one would.

    In another thread than the main one nothing comes: there are no signals.

    Raises:
        OutOfTime: at once, if they are not positive
    """
    if seconds <= 0:
        raise OutOfTime("no time was left for it")
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise OutOfTime("it was stopped: its time was over")

    outer, begin = signal.getitimer(signal.ITIMER_REAL)[0], time.monotonic()  # 0 where there is none
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, min(seconds, outer or seconds))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if outer:
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, outer - (time.monotonic() - begin)))
