"""Our models as an `lm_eval` TemplateLM, so that any lm-eval task can score them.

Importing this module imports lm_eval (about 2 CPU seconds): only the code that runs a task does so.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from typing import Any, cast

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM

from frontload.data_tools.text.chat import our_template
from frontload.data_tools.text.messages import ASSISTANT, USER
from frontload.data_tools.text.render import has_special_token
from frontload.data_tools.text.tokenizer import END, SPECIAL_TOKENS, TextTokenizer
from frontload.eval.asking.generation_options import (
    DEFAULT_NEW_TOKENS,
    GenerationOptions,
    cut,
    generation_options,
)
from frontload.eval.asking.model import ScoringModel
from frontload.eval.asking.pairs import encode_pair
from frontload.megatron_ext.inference.draws import Sampling
from frontload.recipes.errors import RecipeError

Encoded = tuple[tuple[str, str], list[int], list[int]]


class FrontloadLM(TemplateLM):
    """Scores and generates with one of our models through its own tokenizer.

    `<|end|>` ends a document in training, so it is both the end of text and the prefix of a text
    without context. With `shows_end` it stays in a generated text, where the grader of this
    project's template looks for it; any other task compares texts without it.
    """

    def __init__(
        self, model: ScoringModel, tokenizer: TextTokenizer, *, shows_end: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.text_tokenizer = tokenizer
        self.shows_end = shows_end

    @property
    def eot_token_id(self) -> int:
        return END

    @property
    def max_length(self) -> int:
        return self.model.max_sequence_tokens

    @property
    def max_gen_toks(self) -> int:
        return DEFAULT_NEW_TOKENS

    @cached_property
    def tokenizer_name(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Names lm-eval's cache of requests: another vocabulary is another name."""
        digest = sha256(self.text_tokenizer.to_json().encode()).hexdigest()
        return f"frontload-{digest[:16]}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The source of this project's template; lm-eval stores it with the results.

        Raises: RecipeError when another template is asked for by name.
        """
        if isinstance(chat_template, str):
            raise RecipeError(
                "lm-eval's apply_chat_template",
                found=f"the template {chat_template!r}",
                rule="a model of this project has the one template it was trained with",
                do="write true",
            )
        return our_template().source if chat_template else None

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Messages as the text after which the model answers.

        Raises: RecipeError for a role that the template does not have, a beginning of the answer to
            go on from, and a message that spells a special token.
        """
        if not add_generation_prompt:
            raise _no_prompt(
                found="an answer to go on from",
                rule="this project's template has no open answer",
                do="leave out the task's gen_prefix",
            )
        for message in chat_history:
            if message["role"] not in (USER, ASSISTANT):
                raise _no_prompt(
                    found=f"a message of role {message['role']!r}",
                    rule=f"this project's template has the roles {USER} and {ASSISTANT}",
                    do="put its text in front of the question, without system_instruction",
                )
            if has_special_token(message["content"]):
                raise _no_prompt(
                    found=f"a special token in a message: {message['content'][:80]!r}",
                    rule=f"content never spells one of {', '.join(SPECIAL_TOKENS)}",
                    do="leave the row out, or write the token differently",
                )
        turns = [(message["role"], message["content"]) for message in chat_history]
        text = our_template().prompt(turns)
        assert text is not None  # it refuses no user and no assistant
        return text

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Token ids of a text; special tokens are only those written in it."""
        return self.text_tokenizer.encode(string)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Differs from lm-eval's own: see `encode_pair`."""
        return encode_pair(self.text_tokenizer, context, continuation=continuation, end_token=END)

    def _loglikelihood_tokens(
        self, requests: list[Encoded], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation and whether greedy decoding would write it.

        Differs: nothing is cut at the trained context, as lm-eval's own models do in silence. Ours
        have no position embedding, and a cut context is another question.
        """
        single: dict[tuple[int, ...], list[int]] = defaultdict(list)
        whole: set[tuple[int, ...]] = set()
        for _, context, continuation in requests:
            if len(continuation) == 1:
                single[tuple(context)].append(continuation[0])
            else:
                whole.add((*context, *continuation))
        next_token = self._next_token_scores(single)
        rows = sorted(whole)
        scores = dict(zip(rows, self.model.token_scores([list(row) for row in rows]), strict=True))
        answers = []
        for _, context, continuation in requests:
            if len(continuation) == 1:
                answers.append(next_token[tuple(context)][continuation[0]])
                continue
            scored = scores[(*context, *continuation)]
            tail = slice(len(context) - 1, None)
            log_p = float(scored.log_probabilities_S[tail].sum(dtype="float64"))
            answers.append((log_p, bool(scored.is_greedy_S[tail].all())))
        return answers

    def _next_token_scores(
        self, candidates: Mapping[tuple[int, ...], list[int]]
    ) -> dict[tuple[int, ...], dict[int, tuple[float, bool]]]:
        """One pass a context, however many one-token options it has."""
        contexts = list(candidates)
        scores = self.model.candidate_scores(
            [list(context) for context in contexts], [candidates[one] for one in contexts]
        )
        return {
            context: {
                token: (float(log_p), bool(greedy))
                for token, log_p, greedy in zip(
                    candidates[context], one.log_probabilities_S, one.is_greedy_S, strict=True
                )
            }
            for context, one in zip(contexts, scores, strict=True)
        }

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of each request's continuation after its context."""
        pairs = [cast("tuple[str, str]", request.args) for request in requests]
        return self._loglikelihood_tokens([(pair, *self._encode_pair(*pair)) for pair in pairs])

    def loglikelihood_rolling(
        self, requests: Sequence[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-likelihood of whole texts after `<|end|>`, in windows of the model's context.

        Every token is predicted once; windows after the first keep half of the context as history.
        """
        totals = []
        for (text,) in (request.args for request in requests):
            tokens = [END, *self.text_tokenizer.encode(text)]
            totals.append(sum(self._window_sums(tokens)))
        return totals

    def _window_sums(self, tokens: list[int]) -> list[float]:
        window, step = self.max_length, max(1, self.max_length // 2)
        starts = [0]
        while starts[-1] + window < len(tokens):
            starts.append(starts[-1] + step)
        rows = [tokens[start : start + window] for start in starts]
        sums, done = [], 1
        for start, scored in zip(starts, self.model.token_scores(rows), strict=True):
            new_S = scored.log_probabilities_S[done - 1 - start :]
            sums.append(float(new_S.sum(dtype="float64")))
            done = min(len(tokens), start + window)
        return sums

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy or sampled continuations, cut at the first of each request's `until` texts.

        Raises: RecipeError for an option that this engine does not have.
        """
        asked = [cast("tuple[str, dict[str, Any]]", request.args) for request in requests]
        groups: dict[GenerationOptions, list[int]] = defaultdict(list)
        for place, (_, options) in enumerate(asked):
            groups[generation_options(options)].append(place)
        answers = [""] * len(requests)
        for options, places in groups.items():
            prompts = [self.text_tokenizer.encode(asked[place][0]) for place in places]
            made = self.model.generate(
                prompts,
                Sampling(
                    max_new_tokens=options.max_new_tokens,
                    temperature=options.temperature,
                    seed=options.seed,
                    stop_token=END,
                    top_p=options.top_p,
                ),
            )
            for place, (tokens,) in zip(places, made, strict=True):
                shown = tokens if self.shows_end else [one for one in tokens if one != END]
                answers[place] = cut(self.text_tokenizer.decode(shown), options.until)
        return answers


def _no_prompt(*, found: str, rule: str, do: str) -> RecipeError:
    return RecipeError("rendering an lm-eval task's messages", found=found, rule=rule, do=do)
