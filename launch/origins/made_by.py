"""The `frontload run` that makes a stage which is not built, as one would type it."""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from frontload.launch.store import Store
from frontload.recipes.grammar.load import recipe_names
from frontload.recipes.stage import Stage
from frontload.recipes.study.checks import MOST_SEEDS
from frontload.recipes.study.expand import Study, load_study, with_seeds

FIRST = "laptop"  # of the studies that ship: whose stages a name most likely is
SEED = re.compile(r"-seed(\d+)")
SEEDS_SEARCHED = 3  # for a key, which does not say its seed
DEFAULT_STORE = Path("store")


def run_command(
    study: str, store: Store, *, seeds: str | None = None, overrides: Sequence[str] = ()
) -> str:
    """`frontload run STUDY` with the words that decide what it makes, and where."""
    words = ["frontload", "run", study]
    words += ["--seeds", seeds] if seeds is not None else []
    words += overrides
    words += ["--store", str(store.root)] if store.root != DEFAULT_STORE else []
    return shlex.join(words)


@dataclass(frozen=True, kw_only=True)
class Maker:
    """A study that ships, with the seeds that it needs to have a stage."""

    study: str
    seeds: str | None  # as --seeds takes them; None = those that the study states

    def command(self, store: Store) -> str:
        """The run of it."""
        return run_command(self.study, store, seeds=self.seeds)


def find_maker(asked: str, store: Store, *, kinds: Sequence[str] = ()) -> Maker | None:
    """The study that ships with a stage of this key or label; None if none has one.

    Of several, it is that of which most is in the store already.
    """
    best: tuple[int, Maker] | None = None
    for name in sorted(recipe_names("studies"), key=lambda one: one != FIRST):
        study, seeds = _widened(name, asked)
        stage = next(_called(study, asked, kinds), None)
        if stage is None:
            continue
        needed = _seed_of(stage)
        more = None if needed in seeds else str(needed)
        built = sum(store.find(one.kind, one.key) is not None for one in study.stages)
        if best is None or built > best[0]:
            best = built, Maker(study=name, seeds=more)
    return best[1] if best else None


def stage_names(stage: Stage) -> tuple[str, ...]:
    """What people call a stage: key, label or both, with or without its kind."""
    plain = (stage.key, stage.label, f"{stage.label}-{stage.key}")
    return (*plain, *(f"{stage.kind}/{name}" for name in plain))


def _widened(name: str, asked: str) -> tuple[Study, tuple[int, ...]]:
    """A study with the seeds that the name may need too, and those of its own."""
    study = load_study(name)
    seeds = study.recipe.seeds
    found = SEED.search(asked)
    needed = min(int(found[1]), MOST_SEEDS) if found else SEEDS_SEARCHED
    return with_seeds(study, sorted({*seeds, *range(1, needed + 1)})), seeds


def _called(study: Study, asked: str, kinds: Sequence[str]) -> Iterator[Stage]:
    mine = [stage for stage in study.stages if not kinds or stage.kind in kinds]
    for name in (asked, f"{asked}-seed1"):
        yield from (stage for stage in mine if name in stage_names(stage))


def _seed_of(stage: Stage) -> int:
    found = SEED.search(stage.label)
    return int(found[1]) if found else 1
