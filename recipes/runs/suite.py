"""What an evaluation suite may say: its benchmarks, how each is asked, and which rows are tiny."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.limits import LEAST_TEMPERATURE
from frontload.recipes.grammar.load import Loaded, load_recipe, nearest, recipe_path

SUITES, PROMPTS = "suites", "prompts.json"
FULL, TINY = "full", "tiny"
SIZES = (FULL, TINY)
STOCK, TEXT, CHAT = "lm_eval", "text", "chat"
FORMS = (STOCK, TEXT, CHAT)
HARNESS, ANSWER, CHOICE = "lm_eval", "answer", "choice"
PROGRAM, INSTRUCTIONS = "program", "instructions"
GRADERS = (HARNESS, ANSWER, CHOICE, PROGRAM, INSTRUCTIONS)
ENGINE, VLLM = "frontload", "vllm"
ANSWERERS = (ENGINE, VLLM)
LAYOUTS = ("boxed", "think_boxed", "marks")  # of frontload.eval.grading.layout
STAGES = {"base": ("math", "science", "code", "gpr"), "sft": ("math", "science", "code", "ins")}
"""Tables that a suite fills -> their categories (Front-Loading Reasoning, Tables 1 and 2)."""


@dataclass(frozen=True, kw_only=True)
class AnswerSampling:
    """How the answers to one row are drawn."""

    samples: int  # answers to a row; the score is their mean
    temperature: float  # 0 = greedy
    top_p: float
    max_new_tokens: int  # longest answer


@dataclass(frozen=True, kw_only=True)
class SuiteBenchmark:
    """One benchmark as a suite asks it. What the paper leaves open has its reason on its line."""

    category: str  # of the paper's: math, science, code, gpr or ins
    dataset: str  # folder of the data root, named as on the hub
    num_rows: int  # of the split that is asked, all parts together
    form: str  # who writes the prompt: "lm_eval" (a stock task), "text" or "chat" (a prompt here)
    task: str = ""  # lm_eval: file under its tasks, without .yaml; * stands for the parts of it
    prompt: str = ""  # text, chat: the question, with the row's fields in braces
    examples: str = ""  # text: worked examples before it: "minerva", or "" for none
    fields: dict[str, str] = field(default_factory=dict)  # text, chat: use -> field of the row
    answer_separator: str = ""  # the gold answer stands behind it in its field; "" = is all of it
    grader: str  # "lm_eval" (its own metric), "answer", "choice", "program" or "instructions"
    metric: str = ""  # lm_eval: of its metrics and filters, as `acc` or `exact_match,strict-match`
    num_shots: int = 0  # worked examples in the prompt
    split: str = "test"  # text, chat: the split that is asked
    sampling: AnswerSampling | None = None  # absent where options are scored
    stop: tuple[str, ...] = ()  # text, chat: an answer ends before the first of these
    tiny_parts: tuple[str, ...] = ()  # the parts that size tiny asks; () = all
    tiny_rows: tuple[int, ...]  # the rows of each of them


@dataclass(frozen=True, kw_only=True)
class SuiteRecipe:
    """Benchmarks of one stage of training."""

    stage: str  # whose tables it fills: base (pretrained models) or sft (fine-tuned, reinforced)
    layout: str  # where an answer that is graded here has its final part: boxed, marks, think_boxed
    asked: tuple[str, ...]  # of `benchmarks`, in the order of the report
    benchmarks: dict[str, SuiteBenchmark]


@dataclass(frozen=True, kw_only=True)
class SuiteRun:
    """Stage `benchmarks`: a suite asked of one checkpoint. `suite` decides, asked or not."""

    suite: SuiteRecipe
    size: str  # full or tiny
    answerer: str  # who generates: "frontload" in the stage's process, "vllm" from an exported copy
    seed: int  # of the draws


@dataclass(frozen=True, kw_only=True)
class BenchmarkRows:
    """Stage `import_benchmarks`: the proof of rows that stay in the folder of `eval data`."""

    root: str  # seen from the command's folder
    revision: str  # of the rows, in the user's words: another one makes the scores anew


def load_suite(name: str, *, overrides: Sequence[str] = ()) -> Loaded[SuiteRecipe]:
    """Reads a suite by its name in recipes/suites, or a file, and checks it against itself.

    Raises: RecipeError naming file, line and key.
    """
    path = recipe_path(name, folder=SUITES, what="suite")
    loaded = load_recipe(path, SuiteRecipe, overrides=overrides)
    check_suite(loaded)
    return loaded


def stated_prompts(suite: str, size: str) -> dict[str, str]:
    """Benchmark -> digest of the prompts of a suite that ships, on the rows of the benchmark.

    `tests.pages.prompts` wrote them; a benchmark whose rows were not at hand has none.
    """
    path = Path(__file__).parent.parent / SUITES / PROMPTS
    return json.loads(path.read_text(encoding="utf-8")).get(suite, {}).get(size, {})


def check_suite(loaded: Loaded[SuiteRecipe]) -> None:
    """Refuses what no rows and no model could make right.

    Raises: RecipeError at the line that set the value.
    """
    recipe = loaded.value
    if recipe.stage not in STAGES:
        raise _no_choice(loaded, "stage", value=recipe.stage, allowed=tuple(STAGES))
    if not recipe.asked or len(set(recipe.asked)) != len(recipe.asked):
        raise loaded.refuse(
            "asked",
            found=", ".join(recipe.asked) or "no benchmark",
            rule="a suite asks one benchmark or more, each once",
            do=f"name some of {', '.join(recipe.benchmarks)}",
        )
    if recipe.layout not in LAYOUTS:
        raise _no_choice(loaded, "layout", value=recipe.layout, allowed=LAYOUTS)
    for name in recipe.asked:
        if name not in recipe.benchmarks:
            raise loaded.refuse(
                "asked",
                found=f"'{name}' is no benchmark of this suite",
                rule="benchmarks are " + ", ".join(recipe.benchmarks),
                do=nearest(name, tuple(recipe.benchmarks)),
            )
    for name, benchmark in recipe.benchmarks.items():
        _check_benchmark(loaded, f"benchmarks.{name}", one=benchmark)


def _check_benchmark(loaded: Loaded[SuiteRecipe], at: str, *, one: SuiteBenchmark) -> None:
    for name, value, allowed in (
        ("category", one.category, STAGES[loaded.value.stage]),
        ("form", one.form, FORMS),
        ("grader", one.grader, (HARNESS,) if one.form == STOCK else GRADERS[1:]),
    ):
        if value not in allowed:
            raise _no_choice(loaded, f"{at}.{name}", value=value, allowed=allowed)
    given = "task" if one.form == STOCK else "prompt"
    if not getattr(one, given):
        raise loaded.refuse(
            f"{at}.{given}",
            found="empty",
            rule="a stock benchmark names a task of lm-eval; any other states its prompt",
            do=f"write the {given}",
        )
    for name, value, holds, rule in _numbers(one):
        if not holds:
            raise loaded.refuse(
                f"{at}.{name}", found=f"{value}", rule=rule, do=f"write another {name}"
            )


def _numbers(one: SuiteBenchmark) -> list[tuple[str, object, bool, str]]:
    """Field, value, whether it is right, and the rule."""
    rows = "row numbers from 0, each once, below num_rows"
    unlike = len(set(one.tiny_rows)) == len(one.tiny_rows) > 0
    within = unlike and all(0 <= row < one.num_rows for row in one.tiny_rows)
    found: list[tuple[str, object, bool, str]] = [
        ("num_rows", one.num_rows, one.num_rows > 0, "1 or more"),
        ("num_shots", one.num_shots, one.num_shots >= 0, "0 or more"),
        ("tiny_rows", one.tiny_rows, within, rows),
    ]
    drawn = one.sampling
    if drawn is None:
        scored = one.form == STOCK
        return [*found, ("sampling", "absent", scored, "answers of this form are generated")]
    warm = drawn.temperature == 0 or drawn.temperature >= LEAST_TEMPERATURE
    alike = drawn.temperature == 0 and drawn.samples > 1
    least = f"0 for greedy, or {LEAST_TEMPERATURE} and more"
    return [
        *found,
        ("sampling.samples", drawn.samples, drawn.samples > 0, "1 or more"),
        ("sampling.samples", drawn.samples, not alike, "greedy answers are all the same: 1"),
        ("sampling.temperature", drawn.temperature, warm, least),
        ("sampling.top_p", drawn.top_p, 0 < drawn.top_p <= 1, "above 0, at most 1"),
        ("sampling.max_new_tokens", drawn.max_new_tokens, drawn.max_new_tokens > 0, "1 or more"),
    ]


def _no_choice(
    loaded: Loaded[SuiteRecipe], path: str, *, value: str, allowed: Sequence[str]
) -> RecipeError:
    return loaded.refuse(
        path,
        found=f"'{value}'",
        rule="it is one of " + ", ".join(allowed),
        do=nearest(value, allowed),
    )


def num_generations(recipe: SuiteRecipe, *, size: str = FULL) -> dict[str, int]:
    """Benchmark -> answers that an evaluation generates; 0 where options are scored."""
    return {
        name: num_rows(one, size=size) * one.sampling.samples if one.sampling else 0
        for name in recipe.asked
        for one in [recipe.benchmarks[name]]
    }


def num_rows(benchmark: SuiteBenchmark, *, size: str) -> int:
    """Rows that are asked. Of size tiny a benchmark of unnamed parts is taken for one part."""
    if size == FULL:
        return benchmark.num_rows
    return len(benchmark.tiny_rows) * max(1, len(benchmark.tiny_parts))


def most_answer_tokens(recipe: SuiteRecipe, *, size: str, context: int) -> int:
    """Tokens of all answers if each is as long as it may be."""
    counts = num_generations(recipe, size=size)
    return sum(
        counts[name] * min(one.sampling.max_new_tokens, context)
        for name, one in recipe.benchmarks.items()
        if name in counts and one.sampling
    )


def num_scored_rows(recipe: SuiteRecipe, *, size: str) -> int:
    """Rows whose options are scored."""
    asked = [recipe.benchmarks[name] for name in recipe.asked]
    return sum(num_rows(one, size=size) for one in asked if one.sampling is None)
