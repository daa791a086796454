"""The base suite through lm-eval: our items as local tasks, no network, no hub.

Importing this module imports lm_eval (about 2 CPU seconds).
"""

import io
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any, cast

from lm_eval.api.task import ConfigurableTask, Task
from lm_eval.evaluator import evaluate

from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.eval.asking.generation import gold_grades, graded
from frontload.eval.asking.lm_eval_model import FrontloadLM
from frontload.eval.asking.model import ScoringModel
from frontload.eval.asking.prompts import FewShotPrompt, few_shot_prompt
from frontload.eval.grading.grade import grade_generation
from frontload.eval.results import ChoiceResult, GeneratedResult, Generation
from frontload.eval.suites import ChoiceItem, FewShotItem
from frontload.recipes.errors import ArtifactError
from frontload.recipes.schema import Evaluate

BaseItem = ChoiceItem | FewShotItem


def run_base_suite(
    model: ScoringModel,
    tokenizer: TextTokenizer,
    *,
    items: Sequence[BaseItem],
    recipe: Evaluate,
) -> list[ChoiceResult | GeneratedResult]:
    """Asks every base item through lm-eval and returns its results in item order.

    Differs: calls lm_eval's `evaluate`, not `simple_evaluate`, which wraps it with global seeding
    of three random generators, a scan of its own task files and a process that collects the
    machine's package list. lm-eval forms the requests; the grade of a generation is ours, as in the
    SFT suite.
    """
    if not items:
        return []
    limit = model.max_sequence_tokens
    prompts = {
        item.id: few_shot_prompt(tokenizer, item, num_shots=recipe.num_shots, max_tokens=limit)
        for item in items
        if isinstance(item, FewShotItem)
    }
    with _quiet():
        tasks: dict[str, Task] = {
            benchmark: local_task(benchmark, group, prompts=prompts, recipe=recipe)
            for benchmark, group in _by_benchmark(items).items()
        }
        found = evaluate(
            FrontloadLM(model, tokenizer, shows_end=True),  # the grader looks for it
            {"tasks": tasks, "groups": {}, "group_map": {}},
            bootstrap_iters=0,
            log_samples=True,
        )
    assert found is not None  # None comes back on ranks other than 0 only
    outcome = cast("dict[str, Any]", found)
    responses = {
        sample["doc"]["id"]: sample["resps"]
        for rows in outcome["samples"].values()
        for sample in rows
    }
    few_shot = [item for item in items if isinstance(item, FewShotItem)]
    gold = dict(zip([item.id for item in few_shot], gold_grades(tokenizer, few_shot), strict=True))
    results: list[ChoiceResult | GeneratedResult] = []
    for item in items:
        if isinstance(item, ChoiceItem):
            results.append(_choice_result(item, responses[item.id], tokenizer))
        else:
            text = responses[item.id][0][0]
            made = graded(text, item, tokens=len(tokenizer.encode(text)))
            prompt = prompts[item.id]
            results.append(_few_shot_result(item, made, gold=gold[item.id], prompt=prompt))
    return results


class HarnessRows(list[dict[str, Any]]):
    """Rows in memory with the one attribute that lm-eval reads of a data set."""

    @property
    def features(self) -> dict[str, None]:
        """The field names of a row."""
        return dict.fromkeys(self[0])


def local_task(
    benchmark: str,
    items: Sequence[BaseItem],
    *,
    prompts: Mapping[str, FewShotPrompt],
    recipe: Evaluate,
) -> ConfigurableTask:
    """One of our benchmarks as an lm-eval task over rows in memory.

    Raises: ArtifactError when a benchmark mixes choice and few-shot items.
    """
    if len({type(item) for item in items}) > 1:
        raise ArtifactError(
            f"benchmark {benchmark!r}",
            found="choice and few-shot items under one name",
            rule="a benchmark has one kind of item",
            do="build the corpus again with this version",
        )
    rows = HarnessRows(_row(item, prompts) for item in items)
    config: dict[str, Any] = {
        "task": benchmark,
        "custom_dataset": lambda **_: {"test": rows},
        "test_split": "test",
        "doc_to_text": "text",
        "num_fewshot": 0,  # the examples of an item stand in its own text
        "metadata": {},
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    if isinstance(items[0], ChoiceItem):
        config |= {
            "output_type": "multiple_choice",
            "doc_to_choice": "options",
            "doc_to_target": "gold",
            "target_delimiter": " ",
        }
    else:
        config |= {
            "output_type": "generate_until",
            "doc_to_target": "answer",
            "target_delimiter": "",
            "process_results": _grade_row,
            "generation_kwargs": {
                "until": [],
                "max_gen_toks": recipe.max_new_tokens,
                "do_sample": False,
            },
        }
    return ConfigurableTask(config=config)


def _row(item: BaseItem, prompts: Mapping[str, FewShotPrompt]) -> dict[str, Any]:
    if isinstance(item, ChoiceItem):
        options = list(item.options)
        return {"id": item.id, "text": item.context, "options": options, "gold": item.gold}
    return {
        "id": item.id,
        "text": prompts[item.id].text,
        "question": item.question,
        "answer": item.answer,
        "family": item.family,
    }


def _grade_row(doc: dict[str, Any], responses: list[str]) -> dict[str, float]:
    grade = grade_generation(
        responses[0], question=doc["question"], gold=doc["answer"], family=doc["family"]
    )
    return {"acc": grade.reward}


@contextmanager
def _quiet() -> Iterator[None]:
    """Holds back lm-eval's notes about its own options and its progress bars, not its errors."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _choice_result(
    item: ChoiceItem, responses: list[Any], tokenizer: TextTokenizer
) -> ChoiceResult:
    return ChoiceResult(
        id=item.id,
        benchmark=item.benchmark,
        category=item.category,
        prompt_tokens=len(tokenizer.encode(item.context)),
        gold=item.gold,
        log_likelihoods=tuple(float(response[0][0]) for response in responses),
    )


def _few_shot_result(
    item: FewShotItem, made: Generation, *, gold: bool, prompt: FewShotPrompt
) -> GeneratedResult:
    return GeneratedResult(
        id=item.id,
        benchmark=item.benchmark,
        category=item.category,
        family=item.family,
        question=item.question,
        gold=item.answer,
        inside_shq=item.inside_shq,
        hard=False,
        prompt_tokens=prompt.num_tokens,
        num_shots=prompt.num_shots,
        gold_correct=gold,
        samples=(made,),
    )


def _by_benchmark(items: Sequence[BaseItem]) -> dict[str, list[BaseItem]]:
    groups: dict[str, list[BaseItem]] = defaultdict(list)
    for item in items:
        groups[item.benchmark].append(item)
    return groups
