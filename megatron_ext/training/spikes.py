"""Loss spikes: a step whose loss stands far above those before it stops the run."""

import statistics
from collections import deque
from collections.abc import Iterable

from frontload.recipes.machines.upkeep import Upkeep

TO_DEVIATION = 1.4826  # median absolute deviation to standard deviation, normal distribution
LEAST_DEVIATION_SHARE = 0.002  # of the median; ours: a run that hardly moves is not all spikes


class SpikeWatch:
    """The losses of the last steps. A checkpoint holds them, so that resuming is exact."""

    def __init__(self, upkeep: Upkeep, losses: Iterable[float] = ()) -> None:
        self._deviations = upkeep.spike_deviations
        self._window = upkeep.spike_window_steps
        self._losses: deque[float] = deque(losses, maxlen=self._window or None)

    @property
    def losses(self) -> list[float]:
        """What a checkpoint keeps of it."""
        return list(self._losses)

    def limit(self) -> float | None:
        """The loss from which the next step is a spike; None while the window is not full."""
        if not self._window or len(self._losses) < self._window:
            return None
        middle = statistics.median(self._losses)
        spread = statistics.median(abs(loss - middle) for loss in self._losses)
        deviation = max(TO_DEVIATION * spread, LEAST_DEVIATION_SHARE * abs(middle))
        return middle + self._deviations * deviation

    def add(self, loss: float) -> None:
        """Remembers the loss of a step that was no spike."""
        if self._window:
            self._losses.append(loss)
