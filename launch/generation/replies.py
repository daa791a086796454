"""Asks a model one request per document and keeps every reply in an append-only file.

A backend that refuses or garbles single requests loses those documents, which are counted. One that
loses more than a few, or stops answering, ends the run; the same command goes on.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import batched

from frontload.data_tools.text.messages import Message
from frontload.eval.protocol.answers import (
    Answerer,
    GarbledReply,
    Generated,
    GenerationRequest,
    RefusedRequest,
)
from frontload.eval.protocol.samples import SampleFile, SampleName
from frontload.recipes.errors import StageError
from frontload.recipes.runs.suite import AnswerSampling

ASKED_AT_ONCE = 256  # requests of a call: what a kill may cost a model that answers in batches
MOST_LOST, MOST_LOST_SHARE = 20, 0.05  # ours: beyond both, the backend is at fault, not a document


@dataclass(frozen=True, kw_only=True)
class Question:
    """One request about one document."""

    id: str  # the same for the same document, wherever it lies
    messages: tuple[Message, ...]

    @property
    def digest(self) -> str:
        """Of all that the model reads."""
        form = json.dumps(self.messages, sort_keys=True)
        return hashlib.sha256(form.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class AskingSettings:
    """How every request of a run is drawn."""

    task: str  # which request it is: names its samples
    sampling: AnswerSampling
    stop: tuple[str, ...]
    seed: int

    @property
    def digest(self) -> str:
        """Of all that decides a reply besides the request and the seed."""
        form = json.dumps([asdict(self.sampling), self.stop], sort_keys=True)
        return hashlib.sha256(form.encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class LostReply:
    """A document to which the backend gave no reply that can be read."""

    reason: str


class Asker:
    """Asks questions of one kind and remembers how many were lost."""

    def __init__(
        self, answerer: Answerer, samples: SampleFile, *, settings: AskingSettings
    ) -> None:
        self._answerer, self._samples, self._settings = answerer, samples, settings
        self.num_asked = self.num_lost = 0
        self.names: list[SampleName] = []

    def replies[Q: Question](
        self, questions: Iterable[Q]
    ) -> Iterator[tuple[Q, Generated | LostReply]]:
        """Each question with its reply, in order. What was answered before is not asked again.

        Raises: StageError when the backend stops answering, or loses too many.
        """
        for block in batched(questions, ASKED_AT_ONCE):
            named = {self._name(one).key: (self._name(one), one) for one in block}
            lost = self._ask(named)
            for one in block:
                key = self._name(one).key
                if key in lost:
                    yield one, LostReply(reason=lost[key])
                else:
                    yield one, self._reply(key)
            self.names += [name for name, _ in named.values() if name.key not in lost]

    def _reply(self, key: str) -> Generated:
        found = self._samples.answers[key]
        assert isinstance(found, Generated), "requests of this file ask for text"
        return found

    def _name(self, question: Question) -> SampleName:
        return SampleName(
            model=self._answerer.identity,
            task=self._settings.task,
            item=question.id,
            prompt=question.digest,
            settings=self._settings.digest,
            seed=self._settings.seed,
            sample=0,
        )

    def _ask(self, named: Mapping[str, tuple[SampleName, Question]]) -> dict[str, str]:
        """Asks what is missing of a block; returns why each lost request was lost."""
        lost: dict[str, str] = {}
        self.num_asked += len(named)
        while True:
            missing = [key for key in named if key not in self._samples.answers | lost]
            if not missing:
                return lost
            # a model that sums in batches gives the same bits for a block of the same requests
            asked = [key for key in named if key not in lost]
            asked = asked if self._answerer.sums_in_batches else missing
            try:
                for key, reply in self._answerer.generate(
                    [self._request(key, *named[key]) for key in asked]
                ):
                    self._samples.add(named[key][0], reply)
            except (RefusedRequest, GarbledReply) as error:
                self._lose(error, asked, lost=lost)

    def _lose(
        self, error: RefusedRequest | GarbledReply, asked: Sequence[str], *, lost: dict[str, str]
    ) -> None:
        key = next((one for one in asked if error.asked.endswith(f" {one}")), None)
        if key is None:
            raise error
        kind = "refused" if isinstance(error, RefusedRequest) else "garbled"
        lost[key] = f"the backend {kind} it"
        self.num_lost += 1
        if self.num_lost > MOST_LOST and self.num_lost > MOST_LOST_SHARE * self.num_asked:
            raise StageError(
                f"task {self._settings.task}, {self.num_asked} requests",
                found=f"{self.num_lost} refused or garbled; the last: {error.found}",
                rule=f"a run loses at most {MOST_LOST} documents, or {MOST_LOST_SHARE:.0%} of them",
                do="see to the backend, then run the same command again; replies that are there "
                "are not asked again",
            ) from error

    def _request(self, key: str, name: SampleName, question: Question) -> GenerationRequest:
        sampling = self._settings.sampling
        return GenerationRequest(
            key=key,
            prompt=None,
            messages=question.messages,
            seed=name.draw_seed,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_new_tokens=sampling.max_new_tokens,
            stop=self._settings.stop,
        )
