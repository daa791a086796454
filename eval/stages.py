"""The stages that ask a checkpoint, and `tabulate`: what they read and what they leave behind."""

from pathlib import Path

from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.eval.asking.generation import answer_items
from frontload.eval.asking.heldout import score_heldout
from frontload.eval.asking.model import ScoringModel
from frontload.eval.asking.own_samples import write_own_samples
from frontload.eval.asking.set_loss import score_set, write_set_loss
from frontload.eval.results import ChoiceResult, GeneratedResult, Protocol, write_results
from frontload.eval.statistics.score import Scores, rescore
from frontload.eval.suites import (
    GenerateItem,
    Item,
    first_of_benchmarks,
    items_of_suite,
    read_heldout,
    read_items,
)
from frontload.eval.tables.tabulate import write_tables
from frontload.recipes.artifact import (
    Inputs,
    Workspace,
    corpus_heldout,
    corpus_items,
    item_results_file,
    scores_file,
    write_json,
)
from frontload.recipes.errors import RecipeError, StageError
from frontload.recipes.schema import Evaluate, OwnSamples, SetLossRecipe, Tabulate


def evaluate(recipe: Evaluate, inputs: Inputs, work: Workspace) -> None:
    """Asks one checkpoint the suite's items and writes items.jsonl and scores.json."""
    from frontload.megatron_ext.inference.language_model import LanguageModel

    _check(recipe)
    model = LanguageModel.load(inputs["checkpoint"])
    evaluate_model(model, recipe, inputs=inputs, work=work)


def evaluate_model(
    model: ScoringModel, recipe: Evaluate, *, inputs: Inputs, work: Workspace
) -> Scores:
    """`evaluate` on a model that is already loaded.

    Raises: StageError when a gold answer, through the same tokenizer and grader, is not right.
    """
    tokenizer = TextTokenizer.load_ours(inputs["tokenizer"])
    items = items_of_suite(read_items(corpus_items(inputs["corpus"])), recipe.suite)
    items = first_of_benchmarks(items, recipe.items_per_benchmark)
    documents = read_heldout(corpus_heldout(inputs["corpus"]))
    work.progress(0, 2, note=f"{len(items)} items")
    answered = _answer(model, tokenizer, items=items, recipe=recipe)
    work.progress(1, 2, note=f"{len(documents)} held-out traces")
    heldout = score_heldout(model, tokenizer, documents)
    protocol = Protocol(
        suite=recipe.suite,
        num_samples=recipe.num_samples,
        num_hard_samples=recipe.num_hard_samples,
        temperature=recipe.temperature,
        max_new_tokens=recipe.max_new_tokens,
        max_sequence_tokens=model.max_sequence_tokens,
        num_shots=recipe.num_shots,
        seed=recipe.seed,
    )
    path = item_results_file(work.path)
    write_results(path, protocol, results=[*answered, *heldout])
    scores = rescore(path)
    _refuse_wrong_gold(scores, path)
    write_json(scores_file(work.path), scores.to_json())
    work.progress(2, 2, note="scored")
    return scores


def sample_own_answers(recipe: OwnSamples, inputs: Inputs, work: Workspace) -> None:
    """Asks a checkpoint training questions and keeps its right answers as rows for SFT."""
    from frontload.megatron_ext.inference.language_model import LanguageModel

    model = LanguageModel.load(inputs["checkpoint"])
    write_own_samples(model, recipe, inputs=inputs, work=work)


def set_loss(recipe: SetLossRecipe, inputs: Inputs, work: Workspace) -> None:
    """Scores conversations of a pack under a checkpoint that has not learnt them."""
    from frontload.megatron_ext.inference.language_model import LanguageModel

    model = LanguageModel.load(inputs["checkpoint"])
    found = score_set(model, inputs["pack"], num_conversations=recipe.num_conversations)
    write_set_loss(found, work)


def tabulate(recipe: Tabulate, inputs: Inputs, work: Workspace) -> None:
    """Writes cells.json, tables.json, tables.md and verdicts.json from all evaluations."""
    write_tables(recipe, inputs, out=work.path)


def _answer(
    model: ScoringModel, tokenizer: TextTokenizer, *, items: list[Item], recipe: Evaluate
) -> list[GeneratedResult] | list[ChoiceResult | GeneratedResult]:
    if recipe.suite == "sft":
        asked = [item for item in items if isinstance(item, GenerateItem)]
        return answer_items(model, tokenizer, items=asked, recipe=recipe)
    from frontload.eval.asking.harness import run_base_suite  # lm_eval: 2 CPU seconds to import

    base = [item for item in items if not isinstance(item, GenerateItem)]
    return run_base_suite(model, tokenizer, items=base, recipe=recipe)


def _check(recipe: Evaluate) -> None:
    counts = {recipe.num_samples, recipe.num_hard_samples}
    if recipe.temperature == 0 and counts != {1}:
        raise RecipeError(
            "evaluate.num_samples",
            found=f"{recipe.num_samples} and {recipe.num_hard_samples} hard, at temperature 0",
            rule="greedy decoding gives the same answer every time",
            do="write 1 for both counts, or a temperature above 0",
        )
    if min(counts) < 1:
        raise RecipeError(
            "evaluate.num_samples",
            found=f"{recipe.num_samples} and {recipe.num_hard_samples} hard",
            rule="every item is answered at least once",
            do="write 1 or more for both counts",
        )


def _refuse_wrong_gold(scores: Scores, path: Path) -> None:
    replay = scores.gold_replay
    if replay.failed:
        raise StageError(
            "replaying the gold answers",
            found=f"{len(replay.failed)} of {replay.num_items} graded wrong, e.g. "
            f"{', '.join(replay.failed[:3])}",
            rule="a gold answer scores 100% through the same tokenizer, template and grader",
            do=f"look the ids up in {path.name}; unknown words in the tokenizer are the usual case",
        )
