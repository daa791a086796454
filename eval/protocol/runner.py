"""Asks a model every question of a benchmark that is not answered yet."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from frontload.eval.protocol.answers import (
    Answerer,
    Generated,
    GenerationRequest,
    Loglikelihood,
    LoglikelihoodRequest,
)
from frontload.eval.protocol.items import BenchmarkItem, BenchmarkTask
from frontload.eval.protocol.samples import SampleFile, SampleName
from frontload.recipes.errors import StageError
from frontload.recipes.runs.suite import AnswerSampling

ASKED_AT_ONCE = 256  # requests of a call: what a kill may cost a model that answers in batches


class AnswerWatch(Protocol):
    """Hears how far a benchmark is: answers that are there, answers in all."""

    def __call__(self, name: str, *, done: int, total: int) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Asking:
    """One benchmark to ask."""

    name: str
    task: BenchmarkTask
    sampling: AnswerSampling | None  # None where options are scored
    seed: int


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """The answers of one benchmark: item id -> its answers, by number."""

    names: tuple[SampleName, ...]
    answers: Mapping[str, tuple[Generated, ...] | tuple[Loglikelihood, ...]]


def ask(asking: Asking, answerer: Answerer, *, samples: SampleFile, watch: AnswerWatch) -> Sheet:
    """Asks what is missing and returns all answers.

    Requests go out in blocks of fixed membership. Where an answer of a block is missing, a model
    that sums in batches is asked the whole block again, so that it gives the same bits after a
    kill; a server is asked for what is missing.

    Raises: StageError when the model leaves a request without an answer.
    """
    names = list(sample_names(asking, answerer.identity))
    items = {item.id: item for item in asking.task.items}
    done = sum(name.key in samples.answers for name in names)
    watch(asking.name, done=done, total=len(names))
    for start in range(0, len(names), ASKED_AT_ONCE):
        block = names[start : start + ASKED_AT_ONCE]
        missing = [name for name in block if name.key not in samples.answers]
        if not missing:
            continue
        block = block if answerer.sums_in_batches else missing
        for name, answer in _answers(asking, block, items=items, answerer=answerer):
            done += name.key not in samples.answers
            samples.add(name, answer)
            watch(asking.name, done=done, total=len(names))
        _check_all(asking, block, samples=samples)
    return _sheet(names, samples)


def sample_names(asking: Asking, identity: str) -> Iterator[SampleName]:
    """Every answer of a benchmark, in the order of the report."""
    settings = settings_digest(asking)
    for item in asking.task.items:
        count = len(item.options) or (asking.sampling.samples if asking.sampling else 0)
        digest = item.digest
        for number in range(count):
            yield SampleName(
                model=identity,
                task=asking.name,
                item=item.id,
                prompt=digest,
                settings=settings,
                seed=asking.seed if asking.sampling else 0,
                sample=number,
            )


def settings_digest(asking: Asking) -> str:
    """Of all that decides an answer besides the prompt and the seed."""
    if asking.sampling is None:
        return ""
    form = {**asdict(asking.sampling), "stop": asking.task.stop}
    del form["samples"]  # more samples are further ones
    return hashlib.sha256(json.dumps(form, sort_keys=True).encode()).hexdigest()[:12]


def _answers(
    asking: Asking,
    block: Sequence[SampleName],
    *,
    items: Mapping[str, BenchmarkItem],
    answerer: Answerer,
) -> Iterator[tuple[SampleName, Generated | Loglikelihood]]:
    by_key = {request_key(name): name for name in block}
    if asking.sampling is None:
        requests = [_option_request(name, items[name.item]) for name in block]
        found: Iterator[tuple[str, Generated | Loglikelihood]] = answerer.loglikelihood(requests)
    else:
        drawn, stop = asking.sampling, asking.task.stop
        found = answerer.generate(
            [_generation_request(name, items[name.item], drawn=drawn, stop=stop) for name in block]
        )
    for key, answer in found:
        if isinstance(answer, Loglikelihood) and answer.num_tokens < 1:
            raise StageError(
                f"scoring {by_key[key].item}, option {by_key[key].sample}",
                found="a continuation without a token",
                rule="an option that has no token of its own has no likelihood; 0 would win",
                do="report it: the answerer has to encode such an option alone",
            )
        yield by_key[key], answer


def request_key(name: SampleName) -> str:
    """How a request is named to the model, and by it in errors: `gsm8k/17 answer 3`."""
    return f"{name.item} answer {name.sample}"


def _option_request(name: SampleName, item: BenchmarkItem) -> LoglikelihoodRequest:
    context, continuation = item.options[name.sample]
    return LoglikelihoodRequest(key=request_key(name), context=context, continuation=continuation)


def _generation_request(
    name: SampleName, item: BenchmarkItem, *, drawn: AnswerSampling, stop: tuple[str, ...]
) -> GenerationRequest:
    return GenerationRequest(
        key=request_key(name),
        prompt=item.prompt,
        messages=item.messages,
        seed=name.draw_seed,
        temperature=drawn.temperature,
        top_p=drawn.top_p,
        max_new_tokens=drawn.max_new_tokens,
        stop=stop,
    )


def _check_all(asking: Asking, block: Sequence[SampleName], *, samples: SampleFile) -> None:
    left = [name for name in block if name.key not in samples.answers]
    if left:
        raise StageError(
            f"asking {asking.name}",
            found=f"{len(left)} of {len(block)} requests without an answer, e.g. {left[0].item}",
            rule="a model answers every request",
            do="run the same command again: answers that are there are not asked again",
        )


def _sheet(names: Sequence[SampleName], samples: SampleFile) -> Sheet:
    answers: dict[str, list[Generated | Loglikelihood]] = {}
    for name in names:
        answers.setdefault(name.item, []).append(samples.answers[name.key])
    found = {item: tuple(given) for item, given in answers.items()}
    return Sheet(names=tuple(names), answers=found)  # pyright: ignore[reportArgumentType]
