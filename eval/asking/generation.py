"""The SFT suite: sampled answers to every question, graded, with the gold answer's own grade."""

from collections.abc import Sequence

from frontload.data_tools.text.document import Conversation
from frontload.data_tools.text.render import encode_prompts, encode_rows
from frontload.data_tools.text.tokenizer import END, TextTokenizer
from frontload.eval.asking.model import ScoringModel
from frontload.eval.grading.grade import grade_generation
from frontload.eval.results import GeneratedResult, Generation
from frontload.eval.suites import FewShotItem, GenerateItem
from frontload.megatron_ext.inference.draws import Sampling
from frontload.recipes.schema import Evaluate


def answer_items(
    model: ScoringModel,
    tokenizer: TextTokenizer,
    *,
    items: Sequence[GenerateItem],
    recipe: Evaluate,
) -> list[GeneratedResult]:
    """Samples each item as often as the recipe says and grades every sample, in item order.

    The hard benchmarks have their own number of samples (the paper: 16 for AIME, 4 else), and their
    own random stream, so that changing one count leaves the other's samples as they were.
    """
    results: dict[str, GeneratedResult] = {}
    for hard, num_samples in ((False, recipe.num_samples), (True, recipe.num_hard_samples)):
        group = [item for item in items if item.hard == hard]
        if not group:
            continue
        prompts = encode_prompts(tokenizer, [item.question for item in group])
        made = model.generate(
            prompts,
            Sampling(
                max_new_tokens=recipe.max_new_tokens,
                temperature=recipe.temperature,
                seed=2 * recipe.seed + hard,
                stop_token=END,
                num_samples=num_samples,
            ),
        )
        gold = gold_grades(tokenizer, group)
        for item, prompt, samples, right in zip(group, prompts, made, gold, strict=True):
            results[item.id] = GeneratedResult(
                id=item.id,
                benchmark=item.benchmark,
                category=item.category,
                family=item.family,
                question=item.question,
                gold=item.answer,
                inside_shq=item.inside_shq,
                hard=item.hard,
                prompt_tokens=len(prompt),
                num_shots=0,
                gold_correct=right,
                samples=tuple(graded(tokenizer.decode(s), item, tokens=len(s)) for s in samples),
            )
    return [results[item.id] for item in items]


def graded(text: str, item: GenerateItem | FewShotItem, *, tokens: int) -> Generation:
    """A generation with its grade."""
    grade = grade_generation(text, question=item.question, gold=item.answer, family=item.family)
    return Generation(
        text=text,
        answer=grade.extracted,
        correct=grade.correct,
        format_failure="" if grade.formatted else grade.reason,
        tokens=tokens,
    )


def gold_grades(
    tokenizer: TextTokenizer, items: Sequence[GenerateItem | FewShotItem]
) -> list[bool]:
    """Whether each gold answer is right after the tokenizer, the template and the grader."""
    rows = [
        Conversation(
            id=item.id,
            question=item.question,
            trace=item.trace if isinstance(item, GenerateItem) else "",
            answer=item.answer,
            family=item.family,
            domain="",
        )
        for item in items
    ]
    grades = []
    for item, document in zip(items, encode_rows(tokenizer, rows), strict=True):
        answer_tokens = document.tokens_S[document.loss_mask_S == 1].tolist()
        text = tokenizer.decode(answer_tokens)
        grades.append(graded(text, item, tokens=len(answer_tokens)).correct)
    return grades
