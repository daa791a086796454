"""Answers of a benchmark as per-item results: the form that scores, tables and reports read."""

from collections.abc import Sequence

from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.eval.protocol.answers import Generated, Loglikelihood
from frontload.eval.protocol.items import BenchmarkItem, BenchmarkTask, ChoiceTask
from frontload.eval.protocol.runner import Sheet
from frontload.eval.results import ChoiceResult, GeneratedResult, Generation
from frontload.recipes.runs.suite import SuiteBenchmark

TRUNCATED = "cut off at the longest answer"


def benchmark_results(
    name: str,
    benchmark: SuiteBenchmark,
    *,
    task: BenchmarkTask,
    sheet: Sheet,
    tokenizer: TextTokenizer | None,
) -> list[GeneratedResult] | list[ChoiceResult]:
    """One result an item, in the order of the items."""
    if benchmark.sampling is None:
        return [
            _choice(name, benchmark, task=task, item=item, sheet=sheet, tokenizer=tokenizer)
            for item in task.items
        ]
    wrong = failed_gold(task)
    asked = [(item, one) for item in task.items for one in generated_of(sheet, item)]
    grades = iter(zip(asked, task.grade(asked), strict=True))
    results: list[GeneratedResult] = []
    for item in task.items:
        samples: list[Generation] = []
        for _ in generated_of(sheet, item):
            (_, answer), grade = next(grades)
            failure = grade.failure
            if failure and answer.finish == "length":
                failure = TRUNCATED
            samples.append(
                Generation(
                    text=answer.text,
                    answer=grade.answer,
                    correct=grade.correct,
                    format_failure=failure,
                    tokens=answer.num_tokens,
                )
            )
        results.append(
            GeneratedResult(
                id=item.id,
                benchmark=name,
                category=benchmark.category,
                family=name,
                question=item.question,
                gold=item.gold,
                inside_shq=None,
                hard=False,
                prompt_tokens=_num_tokens(tokenizer, prompt_text(item)),
                num_shots=benchmark.num_shots,
                gold_correct=item.id not in wrong,
                samples=tuple(samples),
            )
        )
    return results


def failed_gold(task: BenchmarkTask) -> set[str]:
    """Ids of the items whose gold answer is graded wrong: above this no model can score."""
    golds = task.gold_answers()
    return {
        item.id
        for (item, _), grade in zip(golds, task.grade(golds), strict=True)
        if not grade.correct
    }


def generated_of(sheet: Sheet, item: BenchmarkItem) -> Sequence[Generated]:
    """The generated answers of an item."""
    return [one for one in sheet.answers[item.id] if isinstance(one, Generated)]


def options_of(sheet: Sheet, item: BenchmarkItem) -> Sequence[Loglikelihood]:
    """The scored options of an item."""
    return [one for one in sheet.answers[item.id] if isinstance(one, Loglikelihood)]


def prompt_text(item: BenchmarkItem) -> str:
    """All that a model reads before it answers, without the template of a chat."""
    if item.options:
        return item.options[0][0]
    return item.prompt or "\n".join(turn["content"] for turn in item.messages or ())


def _choice(
    name: str,
    benchmark: SuiteBenchmark,
    *,
    task: BenchmarkTask,
    item: BenchmarkItem,
    sheet: Sheet,
    tokenizer: TextTokenizer | None,
) -> ChoiceResult:
    assert isinstance(task, ChoiceTask), "an item with options is one of a choice benchmark"
    return ChoiceResult(
        id=item.id,
        benchmark=name,
        category=benchmark.category,
        prompt_tokens=_num_tokens(tokenizer, prompt_text(item)),
        gold=task.gold_place(item),
        log_likelihoods=task.scores(item, options_of(sheet, item)),
    )


def _num_tokens(tokenizer: TextTokenizer | None, text: str) -> int:
    """0 where the tokenizer of the model is not known."""
    return len(tokenizer.encode(text)) if tokenizer else 0
