"""Rejection sampling: which answers become rows, what is left out, and that counts add up."""

import json
from collections import Counter
from pathlib import Path

import pytest

from frontload.data_tools.stages import pack
from frontload.data_tools.text.document import Conversation, read_documents
from frontload.data_tools.text.render import encode_rows
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.eval.asking.own_samples import choose_answers, training_questions, write_own_samples
from frontload.eval.grading.grade import grade_generation
from frontload.recipes.errors import StageError
from frontload.recipes.schema import OwnSamples, Pack
from tests.training_inputs import workspace
from tests.unit.eval.fake_study import BookModel, item_row, write_corpus

ROLES: tuple[str, ...] = ("corpus", "tokenizer", "checkpoint", "documents")
CATEGORIES = ("math", "science", "code", "ins")


def row(name: str, question: str, answer: str = "7", trace: str = "") -> Conversation:
    return Conversation(
        id=name, question=question, trace=trace, answer=answer, family="own", domain="math"
    )


def recipe(**fields: int) -> OwnSamples:
    given = {"num_questions": 99, "num_samples": 6, "most_kept": 2} | fields
    return OwnSamples(temperature=1.0, max_new_tokens=60, seed=1, **given)


def test_a_question_is_asked_once_and_never_one_that_an_evaluation_asks() -> None:
    rows = [row("a", "What is 3 + 4 ?"), row("b", "what is 3 + 4"), row("c", "what is 3 - 4 ?")]
    left_out: Counter[str] = Counter()
    found = training_questions(
        [*rows, row("d", "Two , plus two")], {"two plus two"}, left_out=left_out
    )
    assert [one.id for one in found] == ["a", "c"]
    assert left_out == {"asked before": 1, "asked by an evaluation": 1}


def test_only_right_answers_in_the_layout_of_the_template_become_rows() -> None:
    texts = [
        "3 plus 4 is 7 <|answer|> 7 <|end|>",
        "3 plus 4 is 8 <|answer|> 8 <|end|>",
        "3 plus 4 is 7 <|answer|> 7",
        "3 plus 4 is 7 <|end|>",
        "3 plus 4 is 7 <|answer|> 7 <|end|>",
        "1 <|answer|> 8 <|answer|> 7 <|end|>",
        "3 plus 4 is 7  <|answer|>  7 <|end|>",
        "4 plus 3 is 7 <|answer|> 7 <|end|>",
        "7 <|answer|> 7.0 <|end|>",
    ]
    chosen = choose_answers([row("q", "3 + 4 ?")], [texts], most_kept=2)
    assert [(one.id, one.trace, one.answer) for one in chosen.rows] == [
        ("q/own-0", "3 plus 4 is 7", "7"),
        ("q/own-1", "4 plus 3 is 7", "7"),
    ]
    assert chosen.dropped == {
        "more right answers than are kept": 1,
        "no answer mark": 1,
        "no end": 1,
        "not laid out as the template writes it": 1,
        "spells a special token": 1,
        "the same answer as an earlier one": 1,
        "wrong": 1,
    }
    assert chosen.answered == {"own": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A corpus with items, and training questions of which some are asked by its evaluation."""
    items = write_corpus(tmp_path / "corpus")
    asked = [one for one in items if one["kind"] == "generate"]
    training = [item_row("math", "chain", number, hard=False) for number in range(200, 230)]
    names = ("id", "question", "trace", "answer", "family")
    rows = [{name: one[name] for name in names} | {"domain": "math"} for one in training]
    rows += [{name: one[name] for name in names} | {"domain": "math"} for one in asked[:4]]
    lines = "".join(json.dumps(one) + "\n" for one in rows)
    (tmp_path / "corpus" / "documents.jsonl").write_text(lines)
    return tmp_path / "corpus"


def lines_of(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def sample(folder: Path, out: Path, *, skill: float, **fields: int) -> Path:
    rows = [one | {"category": "math"} for one in lines_of(folder / "documents.jsonl")]
    tokenizer = TextTokenizer.load(folder)
    model = BookModel(tokenizer, rows, skill=dict.fromkeys(CATEGORIES, skill), seed=1)
    inputs: dict[str, Path] = dict.fromkeys(ROLES, folder)
    work = workspace(out)
    write_own_samples(model, recipe(**fields), inputs=inputs, work=work)
    return work.path


def test_the_rows_are_right_answers_to_questions_that_no_evaluation_asks(
    folder: Path, tmp_path: Path
) -> None:
    made = sample(folder, tmp_path / "a", skill=0.5)
    rows = list(read_documents(made / "documents.jsonl"))
    assert len(rows) > 10
    asked = {one.get("question") for one in lines_of(folder / "items.jsonl")}
    tokenizer = TextTokenizer.load(folder)
    for one, document in zip(rows, encode_rows(tokenizer, rows), strict=True):
        assert isinstance(one, Conversation)
        assert one.question not in asked
        text = tokenizer.decode(document.tokens_S[document.loss_mask_S == 1].tolist())
        grade = grade_generation(text, question=one.question, gold="", family=one.family)
        assert grade.correct
    facts = json.loads((made / "samples.json").read_text())
    answers, questions = facts["answers"], facts["questions"]
    assert answers["made"] == 6 * questions["asked"]
    assert answers["made"] == answers["kept"] + sum(answers["dropped"].values())
    assert questions["left_out"]["asked by an evaluation"] == sum(
        one["question"] in asked for one in lines_of(folder / "documents.jsonl")
    )
    assert questions["asked"] + sum(questions["left_out"].values()) == 34
    assert answers["kept"] == len(rows) == facts["families"]["chain"]["kept"]
    again = sample(folder, tmp_path / "b", skill=0.5)
    for name in ("documents.jsonl", "samples.json"):
        assert (again / name).read_bytes() == (made / name).read_bytes()


def test_a_pack_reads_the_rows(folder: Path, tmp_path: Path) -> None:
    made = sample(folder, tmp_path / "rows", skill=0.5)
    rows = len(list(read_documents(made / "documents.jsonl")))
    work = workspace(tmp_path / "pack")
    recipe = Pack(sequence_tokens=128, tokens=1280, over_long="drop", seed=1)
    pack(recipe, {"documents": made, "tokenizer": folder}, work)
    packed = json.loads((work.path / "pack.json").read_text())
    assert (packed["sequences"], packed["loss_tokens"] > 2 * rows) == (rows, True)


def test_fewer_questions_are_a_seeded_draw_of_them(folder: Path, tmp_path: Path) -> None:
    made = sample(folder, tmp_path / "few", skill=9.0, num_questions=5, num_samples=1, most_kept=1)
    ids = [one.id for one in read_documents(made / "documents.jsonl")]
    assert len(ids) == 5
    assert ids != sorted(ids)
    questions = json.loads((made / "samples.json").read_text())["questions"]
    assert questions["left_out"]["not among the drawn questions"] > 0


def test_a_model_without_a_right_answer_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no right answer among .* wrong"):
        sample(folder, tmp_path / "none", skill=-9.0)
    assert list((tmp_path / "none" / "path").iterdir()) == []
