"""In which order the stages of a graph can be made: what is ready, and which path is longest."""

from collections.abc import Mapping, Sequence

from frontload.recipes.stage import Stage


class Waiting:
    """Which stages wait for which: each edge is looked at once.

    Inputs that are not among the stages are there already.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = {stage.key: stage for stage in stages}
        self._above: dict[str, list[str]] = {key: [] for key in self._stages}
        self._left: dict[str, int] = {}
        for stage in stages:
            below = {one.key for one in stage.inputs.values()} & self._stages.keys()
            self._left[stage.key] = len(below)
            for key in below:
                self._above[key].append(stage.key)

    def ready(self) -> list[Stage]:
        """Those that wait for nothing, in the order given."""
        return [stage for key, stage in self._stages.items() if not self._left[key]]

    def end(self, key: str) -> list[Stage]:
        """A stage is made: those that waited for it last."""
        found: list[Stage] = []
        for above in self._above[key]:
            self._left[above] -= 1
            if not self._left[above]:
                found.append(self._stages[above])
        return found

    def behind(self, key: str) -> list[Stage]:
        """Every stage that needs this one, directly or not, nearest first."""
        found: dict[str, Stage] = {}
        queue = list(self._above[key])
        for above in queue:
            if above not in found:
                found[above] = self._stages[above]
                queue += self._above[above]
        return list(found.values())


def critical_seconds(stages: Sequence[Stage], seconds: Mapping[str, float]) -> dict[str, float]:
    """Key -> seconds from the start of a stage to the end of the study on the longest path."""
    longest = {stage.key: seconds.get(stage.key, 1.0) for stage in stages}
    for stage in reversed(stages):
        for below in stage.inputs.values():
            if below.key in longest:
                path = seconds.get(below.key, 1.0) + longest[stage.key]
                longest[below.key] = max(longest[below.key], path)
    return longest
