"""What an lm-eval task asks of a generation, as this engine does it; the rest is refused by name.

Importing this module imports lm_eval (about 2 CPU seconds).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs

from frontload.recipes.errors import RecipeError

DEFAULT_NEW_TOKENS = 256  # lm_eval 0.4.13, models/utils.py, normalize_gen_kwargs

_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_DONE = {"until", "do_sample", "temperature", "seed", "top_p", *_LENGTHS}
_SAMPLING_ONLY: dict[str, tuple[Any, ...]] = {
    "top_k": (0, -1, None),
    "min_p": (0, None),
    "typical_p": (1, None),
}
"""Options that change a draw, with the values that change nothing; greedy decoding ignores them."""
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "repetition_penalty": (1, None),
    "presence_penalty": (0, None),
    "frequency_penalty": (0, None),
    "length_penalty": (1, None),
    "no_repeat_ngram_size": (0, None),
    "num_beams": (1, None),
    "use_cache": (True, False, None),
}
"""Options that change every generation, with the values that change nothing."""


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """How one request is answered; requests with the same options go through one batch."""

    temperature: float  # 0 = greedy
    top_p: float  # 1 = the whole distribution
    max_new_tokens: int
    seed: int
    until: tuple[str, ...]  # texts that end the answer and are no part of it


def generation_options(asked: Mapping[str, Any]) -> GenerationOptions:
    """The options of a request, through lm-eval's own normaliser.

    Raises: RecipeError for an option that would be dropped, or whose value is none of its kind.
    """
    _check_until(asked.get("until"))
    lengths = {name: asked[name] for name in _LENGTHS if asked.get(name) is not None}
    if len(set(lengths.values())) > 1:
        raise _refused(
            found=", ".join(f"{name}: {value}" for name, value in lengths.items()),
            rule="they all state the most tokens of an answer, so they agree",
            do="leave one of them",
        )
    options: dict[str, Any] = dict(normalize_gen_kwargs(dict(asked), DEFAULT_NEW_TOKENS))
    temperature = float(options.get("temperature") or 0.0)
    if options["do_sample"] and temperature <= 0:
        raise _refused(
            found=f"do_sample: true with temperature: {asked.get('temperature', 'none')}",
            rule="sampling draws at a temperature above 0",
            do="state the temperature, or do_sample: false",
        )
    for name, value in asked.items():
        _check_option(name, value, is_sampled=temperature > 0)
    if options["max_gen_toks"] < 1:
        raise _refused(
            found=f"{next(iter(lengths))}: {options['max_gen_toks']}",
            rule="an answer has at least one token",
            do="write 1 or more",
        )
    return GenerationOptions(
        temperature=temperature,
        top_p=_top_p(asked.get("top_p"), is_sampled=temperature > 0),
        max_new_tokens=options["max_gen_toks"],
        seed=int(options.get("seed") or 0),
        until=tuple(text for text in options["until"] if text),  # lm-eval skips an empty one too
    )


def _top_p(value: Any, *, is_sampled: bool) -> float:
    """The nucleus of a draw; greedy decoding has none to cut off."""
    if value is None or not is_sampled:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise _refused(
            found=f"top_p: {value}",
            rule="top_p is above 0 and at most 1",
            do="write another, or leave it out",
        )
    return float(value)


def cut(text: str, until: tuple[str, ...]) -> str:
    """The text before the first place where one of `until` begins."""
    ends = [text.find(mark) for mark in until if mark in text]
    return text[: min(ends)] if ends else text


def _check_until(until: Any) -> None:
    texts = until if isinstance(until, list | tuple) else [until or ""]
    for text in texts:
        if not isinstance(text, str):
            raise _refused(
                found=f"until: {until!r}",
                rule="an answer ends at a text, or at the first of a list of texts",
                do="put it in quotes",
            )


def _check_option(name: str, value: Any, *, is_sampled: bool) -> None:
    if name in _DONE:
        return
    if name in _SAMPLING_ONLY:
        if is_sampled and value not in _SAMPLING_ONLY[name]:
            raise _refused(
                found=f"{name}: {value} at a temperature above 0",
                rule="this engine narrows a draw by temperature and top_p alone",
                do=f"leave {name} out, or ask a server that has it",
            )
        return
    if name not in _NEUTRAL or value not in _NEUTRAL[name]:
        known = sorted({*_DONE, *_SAMPLING_ONLY, *_NEUTRAL})
        raise _refused(
            found=f"{name}: {value}",
            rule=f"this engine does what {', '.join(known)} say, penalties and beams at their "
            "neutral value",
            do=f"leave {name} out, or ask a server that has it",
        )


def _refused(*, found: str, rule: str, do: str) -> RecipeError:
    return RecipeError("generation options of an lm-eval task", found=found, rule=rule, do=do)
