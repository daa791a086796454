"""What a benchmark asks of a model, and what any model that can be judged answers."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from frontload.data_tools.text.messages import Message
from frontload.recipes.errors import RecipeError, StageError

Finish = Literal["stop", "length"]
"""Ended by itself or at a stop text; or cut at `max_new_tokens`."""


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """One text to write. Its draws depend on `seed` and the prompt alone, not on what runs beside.

    Exactly one of `prompt` (a text that goes on) and `messages` (a conversation, which the model's
    own chat template renders) is given.
    """

    key: str  # names the sample: unique among the requests of a call
    prompt: str | None
    messages: tuple[Message, ...] | None
    seed: int  # 0 to 2**31 - 1: already made of the suite's seed, the item and the sample
    temperature: float  # 0 = greedy
    top_p: float  # 1 = all tokens
    max_new_tokens: int
    stop: tuple[str, ...]  # the answer ends before the first of these texts


@dataclass(frozen=True, kw_only=True)
class Generated:
    """One text that a model wrote, without the token that ended it and without the stop text."""

    text: str
    num_tokens: int  # generated, the ending token included
    finish: Finish


@dataclass(frozen=True, kw_only=True)
class LoglikelihoodRequest:
    """One continuation to score after a context."""

    key: str
    context: str  # "" = the start of a text
    continuation: str


@dataclass(frozen=True, kw_only=True)
class Loglikelihood:
    """How likely a model finds a continuation."""

    total: float  # nats, summed over the tokens of the continuation
    is_greedy: bool  # whether greedy decoding would write it
    num_tokens: int  # of the continuation; 0 is an error of the answerer, never a score


class RefusedRequest(RecipeError):
    """One request that the model cannot take, whose key ends `asked`; others it can."""


class GarbledReply(StageError):
    """A reply that is none of the protocol, to the request whose key ends `asked`."""


class Answerer(Protocol):
    """A model that can be judged: in this process, behind a server, or in another library.

    Answers come in any order, each as soon as it is there: the runner writes it down at once.

    Raises: RefusedRequest for a request that the model cannot take (a prompt longer than its
            context, an option that it lacks), naming the request's key; GarbledReply for a reply
            that cannot be read; StageError when it stops answering.
    """

    @property
    def identity(self) -> str:
        """What the samples are keyed by: another one for other weights or another tokenizer."""
        ...

    @property
    def sums_in_batches(self) -> bool:
        """Whether the last bits of an answer hang on the requests that a call holds."""
        ...

    @property
    def max_sequence_tokens(self) -> int:
        """Prompt and answer together, as the model was made for."""
        ...

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[tuple[str, Generated]]:
        """(key, answer) of each request."""
        ...

    def loglikelihood(
        self, requests: Iterable[LoglikelihoodRequest]
    ) -> Iterator[tuple[str, Loglikelihood]]:
        """(key, score) of each request."""
        ...
