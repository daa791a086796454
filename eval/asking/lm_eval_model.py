"""Our models as an `lm_eval` TemplateLM, so that any lm-eval task can score them.

Importing this module imports lm_eval (about 2 CPU seconds): only the code that runs a task does so.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, cast

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM

from frontload.data_tools.text.tokenizer import END, TextTokenizer
from frontload.eval.asking.model import ScoringModel

Encoded = tuple[tuple[str, str], list[int], list[int]]


class FrontloadLM(TemplateLM):
    """Scores and generates with one of our models through its own tokenizer.

    `<|end|>` ends a document in training, so it is both the end of text and the prefix of a text
    without context.
    """

    def __init__(self, model: ScoringModel, tokenizer: TextTokenizer) -> None:
        super().__init__()
        self.model = model
        self.text_tokenizer = tokenizer

    @property
    def eot_token_id(self) -> int:
        return END

    @property
    def max_length(self) -> int:
        return self.model.max_sequence_tokens

    @property
    def max_gen_toks(self) -> int:
        return self.model.max_sequence_tokens

    @property
    def tokenizer_name(self) -> str:
        return "frontload"

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Token ids of a text; special tokens are only those written in it."""
        return self.text_tokenizer.encode(string)

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
        """lm-eval's own, without its progress bar."""
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

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
        """Greedy or sampled continuations, cut at the first of each request's `until` texts."""
        groups: dict[tuple[float, int, int], list[int]] = defaultdict(list)
        for place, request in enumerate(requests):
            _, options = _generation_request(request)
            sampled = bool(options.get("do_sample", False))
            temperature = float(options.get("temperature", 0.0)) if sampled else 0.0
            new_tokens = int(options.get("max_gen_toks", self.max_gen_toks))
            groups[(temperature, new_tokens, int(options.get("seed", 0)))].append(place)
        answers = [""] * len(requests)
        for (temperature, new_tokens, seed), places in groups.items():
            texts = [_generation_request(requests[place])[0] for place in places]
            prompts = [self.text_tokenizer.encode(text) for text in texts]
            made = self.model.generate(
                prompts,
                max_new_tokens=new_tokens,
                temperature=temperature,
                seed=seed,
                stop_token=END,
            )
            for place, (tokens,) in zip(places, made, strict=True):
                text = self.text_tokenizer.decode(tokens)
                until = _generation_request(requests[place])[1].get("until") or []
                answers[place] = _cut(text, until)
        return answers


def _generation_request(request: Instance) -> tuple[str, dict[str, Any]]:
    return cast("tuple[str, dict[str, Any]]", request.args)


def _cut(text: str, until: list[str]) -> str:
    ends = [text.find(mark) for mark in until if mark in text]
    return text[: min(ends)] if ends else text
