"""A study without training: a tiny corpus, and models that answer from a book."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from frontload.data_tools.synthetic.families import FAMILIES, generate
from frontload.data_tools.synthetic.problem import random_stream
from frontload.data_tools.text.document import Conversation
from frontload.data_tools.text.render import encode_rows
from frontload.data_tools.text.tokenizer import ANSWER, END, TextTokenizer
from frontload.data_tools.text.train_tokenizer import corpus_texts, train_words
from frontload.megatron_ext.inference.draws import Sampling
from frontload.recipes.machines.placement import Placement
from frontload.recipes.schema import Evaluate

CATEGORY_FAMILIES = {
    "math": ("chain", "add"),
    "science": ("boxes", "two_hop"),
    "code": ("stack", "branch"),
    "ins": ("format",),
}
SHQ_FAMILIES = ("chain", "add", "stack", "boxes")


@dataclass
class FakeWorkspace:
    """A workspace that only writes."""

    path: Path
    scratch: Path
    placement: Placement = field(default_factory=Placement)
    key: str = "0" * 12

    def log(self, step: int, **metrics: float) -> None:
        pass

    def rewind(self, step: int) -> None:
        pass

    def progress(self, done: int, total: int, *, note: str = "") -> None:
        pass


def workspace(path: Path) -> FakeWorkspace:
    """A workspace whose folders exist."""
    (path / "scratch").mkdir(parents=True, exist_ok=True)
    (path / "out").mkdir(exist_ok=True)
    return FakeWorkspace(path=path / "out", scratch=path / "scratch")


def question_rows(*, per_family: int = 6) -> list[dict]:
    """Generation items of every category, and hard ones of math."""
    rows = []
    for category, families in CATEGORY_FAMILIES.items():
        for family in families:
            for number in range(per_family):
                rows.append(item_row(category, family, number, hard=False))
    for number in range(per_family):
        rows.append(item_row("math", "chain", 100 + number, hard=True))
    return rows


def item_row(category: str, family: str, number: int, *, hard: bool) -> dict:
    """One generation item drawn from a family."""
    levels = FAMILIES[family].levels
    level = levels[1] if hard else levels[0]
    stream = random_stream(0, "fake", family, number)
    problem = generate(stream, family, level=level, heldout=True)
    name = f"hard-{family}" if hard else family
    return {
        "id": f"{name}-{number}",
        "kind": "generate",
        "benchmark": name,
        "category": category,
        "family": family,
        "level": level,
        "question": problem.question,
        "answer": problem.solution.answer,
        "trace": " ".join(problem.solution.steps),
        "inside_shq": family in SHQ_FAMILIES,
        "hard": hard,
    }


def few_shot_rows(questions: list[dict]) -> list[dict]:
    """The plain generation items of math, science and code again, after two worked examples."""
    rows = []
    for row in questions:
        if row["hard"] or row["category"] == "ins":
            continue
        exemplars = [
            {name: other[name] for name in ("question", "trace", "answer")}
            for other in questions
            if other["family"] == row["family"] and other["id"] != row["id"]
        ][:2]
        names = ("category", "family", "question", "answer", "inside_shq")
        rows.append(
            {name: row[name] for name in names}
            | {
                "id": f"shot-{row['id']}",
                "kind": "few_shot",
                "benchmark": f"few-shot-{row['family']}",
                "exemplars": exemplars,
            }
        )
    return rows


def choice_rows(*, number: int = 8) -> list[dict]:
    """Choice items of the category gpr."""
    return [
        {
            "id": f"choice-{place}",
            "kind": "choice",
            "benchmark": "copying",
            "category": "gpr",
            "context": f"the box {place % 5} holds",
            "options": ["a ring", "a cup", "a coin"],
            "gold": place % 3,
        }
        for place in range(number)
    ]


def write_corpus(folder: Path, *, per_family: int = 6) -> list[dict]:
    """items.jsonl, heldout.jsonl and a tokenizer.json over all their words."""
    folder.mkdir(parents=True, exist_ok=True)
    questions = question_rows(per_family=per_family)
    items = [*questions, *few_shot_rows(questions), *choice_rows()]
    heldout = [
        {name: row[name] for name in ("id", "question", "trace", "answer", "family", "inside_shq")}
        | {"domain": row["category"]}
        for row in questions
        if not row["hard"]
    ]
    for name, rows in (("items", items), ("heldout", heldout)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines)
    texts = [row.get("context", "") + " " + " ".join(row.get("options", [])) for row in items]
    words = {"id": "words", "text": " ".join([*texts, "wrong"])}
    rows = [
        {name: row[name] for name in ("id", "question", "trace", "answer", "family")}
        | {"domain": row["category"]}
        for row in questions
    ]
    training = folder / "training.jsonl"
    training.write_text("".join(json.dumps(row) + "\n" for row in [words, *rows]))
    trained = train_words(corpus_texts([training]), vocab_size=2000)
    (folder / "tokenizer.json").write_text(trained.tokenizer.to_json())
    return items


@dataclass(frozen=True, kw_only=True)
class FakeScores:
    """What a model says of one sequence."""

    log_probabilities_S: np.ndarray
    is_greedy_S: np.ndarray


class BigramModel:
    """Next-token probabilities that depend on the last token only: every sum can be checked."""

    def __init__(self, vocab_size: int, *, max_sequence_tokens: int = 256, seed: int = 0) -> None:
        self.vocab_size = vocab_size
        self.max_sequence_tokens = max_sequence_tokens
        logits_VV = np.random.default_rng(seed).normal(size=(vocab_size, vocab_size))
        self.log_p_VV = (logits_VV - np.log(np.exp(logits_VV).sum(1, keepdims=True))).astype("f4")

    def token_scores(
        self, sequences: list[list[int]], *, batch_sequences: int = 64
    ) -> list[FakeScores]:
        best_V = self.log_p_VV.argmax(1)
        return [
            FakeScores(
                log_probabilities_S=self.log_p_VV[s[:-1], s[1:]],
                is_greedy_S=best_V[s[:-1]] == s[1:],
            )
            for s in map(np.asarray, sequences)
        ]

    def candidate_scores(
        self,
        contexts: list[list[int]],
        candidates: list[list[int]],
        *,
        batch_sequences: int = 64,
    ) -> list[FakeScores]:
        best_V = self.log_p_VV.argmax(1)
        return [
            FakeScores(
                log_probabilities_S=self.log_p_VV[context[-1], tokens],
                is_greedy_S=best_V[context[-1]] == np.asarray(tokens),
            )
            for context, tokens in zip(contexts, candidates, strict=True)
        ]

    def generate(self, prompts: list[list[int]], sampling: Sampling) -> list[list[list[int]]]:
        made = []
        for prompt in prompts:
            tokens = [prompt[-1]]
            while len(tokens) <= sampling.max_new_tokens and (
                len(tokens) == 1 or tokens[-1] != sampling.stop_token
            ):
                tokens.append(int(self.log_p_VV[tokens[-1]].argmax()))
            made.append([tokens[1:] for _ in range(sampling.num_samples)])
        return made


class BookModel(BigramModel):
    """Knows some gold answers by heart: a question is answered right with its own probability.

    The probability is `skill` of the question's category moved by the question and by the seed, so
    that models of one study differ, questions differ, and seeds differ.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        items: list[dict],
        *,
        skill: dict[str, float],
        seed: int,
        failures: float = 0.1,
    ) -> None:
        super().__init__(tokenizer.vocab_size, seed=seed)
        self.tokenizer, self.skill, self.seed, self.failures = tokenizer, skill, seed, failures
        self.book = {row["question"]: row for row in items if "question" in row}

    def generate(self, prompts: list[list[int]], sampling: Sampling) -> list[list[list[int]]]:
        return [
            [
                self._answer(prompt, seed=sampling.seed, sample=sample)
                for sample in range(sampling.num_samples)
            ]
            for prompt in prompts
        ]

    def _answer(self, prompt: list[int], *, seed: int, sample: int) -> list[int]:
        question = self.tokenizer.decode(prompt).rpartition("<|user|>")[2]
        question = question.replace("<|assistant|>", "").strip()
        row = self.book[question]
        draw = random_stream(self.seed, "book", question, seed, sample)
        difficulty = random_stream(0, "difficulty", question).gauss(0, 0.2)
        drift = random_stream(self.seed, "drift", row["category"]).gauss(0, 0.03)
        right = draw.random() < self.skill[row["category"]] + difficulty + drift
        conversation = Conversation(
            id="",
            question=question,
            trace=row.get("trace", ""),
            answer=row["answer"] if right else "wrong",
            family="",
            domain="",
        )
        document = encode_rows(self.tokenizer, [conversation])[0]
        tokens = document.tokens_S[document.loss_mask_S == 1].tolist()
        if not right and draw.random() < self.failures:
            return [token for token in tokens if token != ANSWER]
        assert tokens[-1] == END
        return tokens


def recipe(suite: str, *, num_samples: int = 2, seed: int = 0) -> Evaluate:
    """A small evaluation."""
    return Evaluate(
        suite=suite,
        num_samples=1 if suite == "base" else num_samples,
        num_hard_samples=1 if suite == "base" else num_samples + 1,
        temperature=0.0 if suite == "base" else 0.7,
        max_new_tokens=60,
        num_shots=2,
        seed=seed,
    )
