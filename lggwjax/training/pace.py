"""When a monitor may measure, so that it keeps to a share of the wall time."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace

REMEMBERED = 9  # costs of the last looks, of which the median foretells the next
STALL = 5  # a look this many times dearer than the median is taken for a recompilation


@dataclass(frozen=True)
class Pace:
    """What looking has cost so far. All times in seconds of one clock.

    The first look compiles: what it took beyond the median of the later ones is compilation. So is, in a later look
    that took more than five times the median of those before it, what lies beyond that median: a program was
    compiled again (or the machine stood still). Compilation is booked apart, and is not paid back by waiting.

    Attributes:
        start: When watching began.
        first: What the first look took, or None before it.
        costs: What the last looks after the first took, nine at most.
        booked: What all looks after the first took in all, recompilation apart.
        stalled: Recompilation.
    """

    start: float
    first: float | None = None
    costs: tuple[float, ...] = ()
    booked: float = 0.0
    stalled: float = 0.0

    @property
    def typical(self) -> float:
        """Median cost of the last looks; before there is one, 0."""
        return statistics.median(self.costs) if self.costs else 0.0

    @property
    def compile_seconds(self) -> float:
        """Time taken by compilation; before a second look it cannot be told from the first look's measuring."""
        return self.stalled + (max(0.0, self.first - self.typical) if self.first is not None else 0.0)

    @property
    def measuring_seconds(self) -> float:
        """Time taken by looking, compilation apart."""
        return self.booked + (min(self.first, self.typical) if self.first is not None else 0.0)

    def looked(self, seconds: float) -> Pace:
        """Book a look."""
        if self.first is None:
            return replace(self, first=seconds)
        stall = max(0.0, seconds - self.typical) if self.costs and seconds > STALL * self.typical else 0.0
        # A recompilation is remembered by its usual cost: else it would foretell the next look.
        costs = (*self.costs, seconds - stall)[-REMEMBERED:]
        return replace(self, costs=costs, booked=self.booked + seconds - stall, stalled=self.stalled + stall)

    def spent(self, seconds: float) -> Pace:
        """Book what is not a look, such as a copy made for the next."""
        return replace(self, booked=self.booked + seconds)

    def affords(self, now: float, overhead: float) -> bool:
        """Whether, after one more look, looking would still have taken at most ``overhead`` of the wall time.

        Args:
            now: Time of the clock.
            overhead: A share of the wall time since the start, compilation taken off both sides.

        Returns:
            True if the next look, at its typical cost, keeps to the share.

        Example:
            >>> pace = Pace(start=0.0).looked(11.0).looked(1.0)
            >>> pace.compile_seconds, pace.measuring_seconds
            (10.0, 2.0)
            >>> pace.affords(40.0, 0.1), pace.affords(38.0, 0.1)
            (True, False)
        """
        wall = now - self.start - self.compile_seconds
        return self.measuring_seconds + self.typical <= overhead * (wall + self.typical)
