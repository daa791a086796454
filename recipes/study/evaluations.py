"""The stages that ask a study's models the paper's benchmarks, and what must hold in them."""

from frontload.recipes import schema
from frontload.recipes.grammar.limits import require_choice
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.runs.suite import (
    ANSWERERS,
    SIZES,
    VLLM,
    BenchmarkRows,
    SuiteRecipe,
    SuiteRun,
    check_suite,
)
from frontload.recipes.stage import Stage
from frontload.recipes.study.data import StudyData
from frontload.recipes.study.schema import BenchmarkKnobs, StudyRecipe

STAGE_OF = {"base": "base", "sft": "sft", "rl": "sft"}
"""Suite of a study -> the tables that it fills."""


def ask_suite(
    knobs: BenchmarkKnobs, suite: str, *, model: Stage, data: StudyData, seed: int
) -> Stage:
    """A suite asked of one model; vLLM answers from an exported copy."""
    chosen: SuiteRecipe = getattr(knobs, suite)
    rows = Stage(
        kind="import_benchmarks",
        label="rows",
        recipe=BenchmarkRows(root=knobs.root, revision=knobs.revision),
    )
    inputs = {"checkpoint": model, "tokenizer": data.tokenizer, "rows": rows}
    if knobs.answerer == VLLM:
        inputs["exported"] = Stage(
            kind="convert",
            label=model.label,
            recipe=schema.Export(form="nemotron_h"),
            inputs={"checkpoint": model, "tokenizer": data.tokenizer},
        )
    recipe = SuiteRun(suite=chosen, size=knobs.size, answerer=knobs.answerer, seed=seed)
    return Stage(kind="benchmarks", label=f"{model.label}.{suite}", recipe=recipe, inputs=inputs)


def check_benchmarks(loaded: Loaded[StudyRecipe]) -> None:
    """Refuses suites that are wrong in themselves, or fill the wrong tables.

    Raises: RecipeError at the line that set the value.
    """
    knobs = loaded.value.evaluation.benchmarks
    if knobs is None:
        return
    at = "evaluation.benchmarks"
    require_choice(loaded, f"{at}.size", value=knobs.size, names=SIZES)
    require_choice(loaded, f"{at}.answerer", value=knobs.answerer, names=ANSWERERS)
    for knob in ("root", "revision"):
        if not getattr(knobs, knob):
            raise loaded.refuse(
                f"{at}.{knob}", found="is empty", rule="it is a name", do="write one"
            )
    for name, stage in STAGE_OF.items():
        suite: SuiteRecipe = getattr(knobs, name)
        check_suite(loaded.section(f"{at}.{name}", suite))
        require_choice(loaded, f"{at}.{name}.stage", value=suite.stage, names=(stage,))
