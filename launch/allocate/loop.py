"""The loop: block after block until exploring ends, then the registration, fresh seeds, the answer.

Nothing is kept but artifacts. Each step's stage follows from those before it, so the same command
after a kill finds what is built and continues.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import read_json
from frontload.eval.allocation.stages import (
    DECISION,
    REGISTERED,
    REGISTRATION,
    read_registration,
)
from frontload.launch.allocate.beside import Beside
from frontload.launch.allocate.jobs import run_as_jobs
from frontload.launch.allocate.question import Allocation
from frontload.launch.shown.progress import StudyProgress
from frontload.launch.store import Store
from frontload.launch.study.crew import Crew
from frontload.launch.study.price import Price, price_stages, read_measured
from frontload.launch.study.runner import Settings, run_stages
from frontload.recipes.errors import FrontloadError, StageError
from frontload.recipes.runs import allocation as asking
from frontload.recipes.stage import Stage
from frontload.recipes.study.expand import in_order

DECIDERS = ("frontload.eval.allocation.stages",)
"""What a worker of a decision imports: nothing that trains."""


@dataclass(frozen=True, kw_only=True)
class Explored:
    """How far a question has come in a store."""

    cells: tuple[asking.AskedCell, ...]
    decisions: tuple[Stage, ...]  # that are built, in their order
    following: Mapping[str, Any] | None  # the block that the last one asks for; None = it stops
    stop: str


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The folders behind an answer."""

    folder: Path  # of `conclude`
    beside: Path | None  # of `readings`, where the question has any
    registered: str
    decisions: tuple[Path, ...]
    packs: Mapping[str, Path]  # candidate -> pack of the first seed that ran it


class Loop:
    """Runs an allocation in a store."""

    def __init__(self, allocation: Allocation, store: Store, *, crew: Crew) -> None:
        self.allocation, self.store, self.crew = allocation, store, crew

    def run(self) -> Answered:
        """Makes what is missing up to the answer.

        Raises: the error of the first stage that failed.
        """
        explored = self.explore()
        registered = self.register(explored)
        self._make([registered], is_decision=True)
        found = self._read(registered, REGISTRATION)
        fresh = [self.allocation.asked_cell(*cell) for cell in found["cells"]]
        print(
            f"registered as {registered.folder}: {found['name']}, "
            f"{len(found['comparisons'])} comparisons on seeds "
            f"{found['seeds'][0]} to {found['seeds'][-1]}",
            flush=True,
        )
        self._make(list(self.allocation.inputs(fresh).values()))
        answer = self.answer(explored, registered, fresh=fresh)
        self._make([answer], is_decision=True)
        beside = self._read_beside(found, registered=registered, answered=answer)
        return Answered(
            folder=self._folder(answer),
            beside=beside,
            registered=registered.folder,
            decisions=tuple(self._folder(stage) for stage in explored.decisions),
            packs=self._packs((*explored.cells, *fresh)),
        )

    def find_answer(self) -> Path | None:
        """The folder of the answer, where the store has it; runs nothing."""
        explored = self.progress()
        registered = self.register(explored)
        if not explored.stop or self.store.find(registered.kind, registered.key) is None:
            return None
        fresh = [
            self.allocation.asked_cell(*c) for c in self._read(registered, REGISTRATION)["cells"]
        ]
        answer = self.answer(explored, registered, fresh=fresh)
        return self.store.find(answer.kind, answer.key)

    def _read_beside(
        self, found: Mapping[str, Any], *, registered: Stage, answered: Stage
    ) -> Path | None:
        """What is read beside the verdict, which stands by now; None where nothing is."""
        beside = Beside.of(self.allocation)
        if beside is None:
            return None
        last = beside.stage(read_registration(found), registered=registered, answered=answered)
        cells = [below for below in last.inputs.values() if below.kind == "evaluate"]
        print(f"readings beside the verdict: {len(cells)} cells", flush=True)
        self._make(cells)
        self._make([last], is_decision=True)
        return self._folder(last)

    def _packs(self, cells: Sequence[asking.AskedCell]) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for cell in cells:
            model = self.allocation.graph.evaluation(cell.candidate, cell.seed)
            pack = model.inputs["checkpoint"].inputs.get("pack")
            name = self.allocation.question.candidates[cell.candidate].name
            if pack is not None and name not in found:
                found[name] = self._folder(pack)
        return found

    def explore(self) -> Explored:
        """Decides and runs blocks until a decision stops."""
        while True:
            found = self.progress()
            if found.following is None and found.stop:
                return found
            if found.following is None:
                self._make([self.decision(found.cells, len(found.decisions))], is_decision=True)
                continue
            block = found.following
            print(f"block {len(found.decisions) - 1}: {block['name']}", flush=True)
            cells = [self.allocation.asked_cell(*cell) for cell in block["cells"]]
            self._make(list(self.allocation.inputs(cells).values()))
            decision = self.decision((*found.cells, *cells), len(found.decisions))
            self._make([decision], is_decision=True)

    def progress(self) -> Explored:
        """What the store has of the chain of decisions; runs nothing."""
        cells = tuple(self.allocation.asked_cell(*cell) for cell in self.allocation.prior)
        decisions: list[Stage] = []
        while True:
            stage = self.decision(cells, len(decisions))
            if self.store.find(stage.kind, stage.key) is None:
                before = self._read(decisions[-1], DECISION)["next"] if decisions else None
                known = cells[: len(cells) - len(before["cells"])] if before else cells
                return Explored(cells=known, decisions=tuple(decisions), following=before, stop="")
            decisions.append(stage)
            found = self._read(stage, DECISION)
            if found["next"] is None:
                return Explored(
                    cells=cells, decisions=tuple(decisions), following=None, stop=found["stop"]
                )
            cells = (*cells, *(self.allocation.asked_cell(*c) for c in found["next"]["cells"]))

    def decision(self, cells: Sequence[asking.AskedCell], number: int) -> Stage:
        """The stage that decides after these cells."""
        recipe = asking.Decide(question=self.allocation.question, round=number, cells=tuple(cells))
        return Stage(
            kind="decide",
            label=f"{self.allocation.name}-{number}",
            recipe=recipe,
            inputs=self.allocation.inputs(cells),
        )

    def register(self, explored: Explored) -> Stage:
        """The stage that writes the comparisons down."""
        return Stage(
            kind="register",
            label=self.allocation.name,
            recipe=asking.Register(
                question=self.allocation.question, cells=explored.cells, stop=explored.stop
            ),
            inputs=self.allocation.inputs(explored.cells),
        )

    def answer(
        self, explored: Explored, registered: Stage, *, fresh: Sequence[asking.AskedCell]
    ) -> Stage:
        """The stage that compares on fresh seeds."""
        return Stage(
            kind="conclude",
            label=self.allocation.name,
            recipe=asking.Conclude(
                question=self.allocation.question,
                cells=explored.cells,
                fresh_cells=tuple(fresh),
            ),
            inputs={
                **self.allocation.inputs((*explored.cells, *fresh)),
                REGISTERED: registered,
            },
        )

    # ------------------------------------------------------------ the store

    def _make(self, last: Sequence[Stage], *, is_decision: bool = False) -> None:
        stages = in_order(last)
        built = self.store.find_all(stages)
        missing = [stage for stage in stages if stage.key not in built]
        if not missing:
            return
        if self.allocation.are_jobs and not is_decision:
            run_as_jobs(self.allocation, self.store, stages)
            return
        prices = self._prices(missing)
        watcher = StudyProgress(missing, {key: one.seconds for key, one in prices.items()})
        try:
            summary = run_stages(
                stages,
                self.store,
                settings=self._settings(prices, is_decision=is_decision),
                watcher=watcher,
            )
        finally:
            watcher.close()
        if summary.failed:
            raise _first(list(summary.failed.values()), num_blocked=len(summary.blocked))

    def _settings(self, prices: Mapping[str, Price], *, is_decision: bool) -> Settings:
        placements = self.allocation.placements
        if is_decision:
            return Settings(placements=placements, workers=1, prices=prices, preload=DECIDERS)
        crew = self.crew
        return Settings(placements=placements, workers=crew.workers, gpus=crew.gpus, prices=prices)

    def _prices(self, stages: Sequence[Stage]) -> Mapping[str, Price]:
        placements = self.allocation.placements
        return price_stages(stages, read_measured(self.store, placements), placements=placements)

    def _read(self, stage: Stage, name: str) -> Mapping[str, Any]:
        return read_json(self._folder(stage) / name)

    def _folder(self, stage: Stage) -> Path:
        found = self.store.find(stage.kind, stage.key)
        assert found is not None, f"{stage.folder} was made above"
        return found


def _first(errors: Sequence[FrontloadError], *, num_blocked: int) -> FrontloadError:
    error = errors[0]
    if len(errors) == 1 and not num_blocked:
        return error
    return StageError(
        error.asked,
        found=f"{error.found}; {len(errors)} stages failed and {num_blocked} wait for them",
        rule=error.rule,
        do=error.do,
    )
