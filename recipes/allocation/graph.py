"""Candidates at seeds to stages of their study: the same keys as a study that lists them. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from frontload.recipes.allocation.lattice import Lattice, LatticePoint, exchange_points
from frontload.recipes.allocation.schema import AllocationRecipe
from frontload.recipes.stage import Stage
from frontload.recipes.study.data import StudyData, study_data
from frontload.recipes.study.expand import in_order
from frontload.recipes.study.graph import StudyGraph
from frontload.recipes.study.points import Point, first_phase_tokens, single_points
from frontload.recipes.study.schema import PretrainingKnobs

SEEDED = ("blend", "pretrain", "pack", "sft", "evaluate")
"""Kinds of stage that each seed makes anew; the others are the study's data."""


@dataclass(frozen=True, kw_only=True)
class SeededStage:
    """A stage of a seed, and its name without the seed."""

    part: str
    stage: Stage


class AllocationGraph:
    """The evaluation of every candidate at any seed, and what lies below it."""

    def __init__(self, recipe: AllocationRecipe, lattice: Lattice) -> None:
        self.recipe, self.lattice = recipe, lattice
        self._data: dict[int, StudyData] = {}
        self._evaluations: dict[int, tuple[Stage, ...]] = {}
        self._arms: tuple[str, ...] = ()

    @property
    def arms(self) -> tuple[str, ...]:
        """Of each candidate: equal for those that share their pretraining at a seed."""
        if not self._arms:
            names = []
            for evaluation, point in zip(self._of_seed(1), self.lattice.points, strict=True):
                model = evaluation.inputs["checkpoint"]
                branch = model.inputs["start"] if point.sft_tokens else model
                names.append(_part(branch, 1))
            self._arms = tuple(names)
        return self._arms

    def evaluation(self, candidate: int, seed: int) -> Stage:
        """The stage that scores a candidate at a seed."""
        return self._of_seed(seed)[candidate]

    def parts(self, candidate: int, seed: int) -> Iterator[SeededStage]:
        """Every stage that a candidate needs at a seed, the study's data left out."""
        for stage in in_order([self.evaluation(candidate, seed)]):
            if stage.kind in SEEDED:
                yield SeededStage(part=_part(stage, seed), stage=stage)

    def data_stages(self) -> Iterator[Stage]:
        """Every stage that all seeds share: corpus, tokenizer, sets, indexes."""
        for stage in in_order(self._of_seed(1)):
            if stage.kind not in SEEDED:
                yield stage

    def _of_seed(self, seed: int) -> tuple[Stage, ...]:
        if seed not in self._evaluations:
            found: dict[int, Stage] = {}
            by_total: dict[int, list[int]] = {}
            for place, point in enumerate(self.lattice.points):
                by_total.setdefault(point.total_pretraining_tokens, []).append(place)
            for total, places in by_total.items():
                found |= self._graph(total, places, seed=seed)
            self._evaluations[seed] = tuple(found[place] for place in sorted(found))
        return self._evaluations[seed]

    def _graph(self, total: int, places: list[int], *, seed: int) -> dict[int, Stage]:
        """The evaluations of the candidates whose pretraining has `total` tokens.

        The study's own onset comes first, so that its trunk is the one that other studies made.
        """
        study = self.recipe.study
        own = first_phase_tokens(study.pretraining)
        points = [self.lattice.points[place] for place in places]
        order = sorted(range(len(places)), key=lambda one: _onset_order(points[one], own))
        shaped = replace(
            study,
            pretraining=with_total(study.pretraining, total),
            points=tuple(points[one].knobs for one in order),
            seeds=(seed,),
        )
        if total not in self._data:
            self._data[total] = study_data(shaped)
        expanded: list[Point] = single_points(shaped)
        graph = StudyGraph(shaped, self._data[total], points=expanded)
        found: dict[int, Stage] = {}
        for one, point in zip(order, expanded, strict=True):
            (found[places[one]],) = graph.evaluations(point).values()
        return found


def exchange_graph(recipe: AllocationRecipe) -> AllocationGraph:
    """The cells that an exchange rate is read from, in their order."""
    points = tuple(exchange_points(recipe).values())
    return AllocationGraph(
        recipe, Lattice(factors=(), points=points, competitors={}, num_left_out=0)
    )


def rated_graph(recipe: AllocationRecipe, lattice: Lattice, *, sft_rate: float) -> AllocationGraph:
    """The candidates, fine-tuned at so many times the study's learning rate."""
    study = recipe.study
    tuned = replace(study.sft, learning_rate=study.sft.learning_rate * sft_rate)
    return AllocationGraph(replace(recipe, study=replace(study, sft=tuned)), lattice)


def with_total(knobs: PretrainingKnobs, total: int) -> PretrainingKnobs:
    """Pretraining of another length with the same warm-up and the same first phase."""
    if total == knobs.tokens:
        return knobs
    warmup = knobs.warmup_share * knobs.tokens / total
    return replace(
        knobs,
        tokens=total,
        warmup_share=warmup,
        first_phase_share=first_phase_tokens(knobs) / total,
    )


def _onset_order(point: LatticePoint, own: int) -> tuple[bool, int]:
    onset = point.knobs.onset_tokens
    return (onset is not None and onset != own, onset or 0)


def _part(stage: Stage, seed: int) -> str:
    return f"{stage.kind}/{stage.label.removesuffix(f'-seed{seed}')}"
