"""Ends a run of veRL that makes no step: its processes may live and wait for each other for ever.

Met as verl#7155 (a sampler waits for a response that was lost). `launch/ranks/hangs.py` sees only
ranks that `frontload train` started; a trainer of veRL shows what it does in its log alone.
"""

import time
from collections.abc import Callable

from frontload.recipes.errors import StageError

MOST_GAP_SECONDS = 2.0  # between two looks; a longer one is a pause of this process


class Hung(StageError):
    """A run that makes no step. Started again it may well go on."""


class StepWatch:
    """How long no step ended, in time that this process itself has lived through.

    A job that was suspended as a whole, or a machine too busy to let it look, makes no hang.
    """

    def __init__(
        self, limit_seconds: float, log: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit, self._log, self._clock = limit_seconds, log, clock
        self._at, self._still = clock(), 0.0

    def look(self, *, has_moved: bool, step: int) -> None:
        """Notes whether a step has ended since the last look. A limit of 0 is none.

        Raises: Hung when none has ended for too long.
        """
        now = self._clock()
        self._still = 0.0 if has_moved else self._still + min(now - self._at, MOST_GAP_SECONDS)
        self._at = now
        if self._limit and self._still > self._limit:
            where = f"after step {step}" if step else "since the start"
            raise Hung(
                "veRL's trainer",
                found=f"no step ended for {self._still:.0f} s, {where}",
                rule=f"a step, and the start, take at most placement.rl.hang_seconds, "
                f"{self._limit:g} s",
                do=f"read {self._log} for who waits; the run is ended here and goes on from its "
                "newest whole checkpoint. Where a step takes that long, raise the limit; 0 is none",
            )
