"""`frontload eval` and `frontload eval data` as they are typed."""

import json
from collections import Counter
from pathlib import Path

import pytest

from frontload.launch import cli
from frontload.launch.study.price import ANSWER_SHARE, work_of
from frontload.recipes.runs.suite import num_generations
from frontload.recipes.study.expand import load_study
from tests.training_inputs import tiny_model
from tests.unit.eval_protocol.protocol_inputs import CONTEXT, write_tokenizer
from tests.unit.megatron_ext.convert_inputs import write_checkpoint

Capture = pytest.CaptureFixture[str]
SHORT = [
    f"benchmarks.{name}.sampling.max_new_tokens=12"
    for name in ("gsm8k", "math500", "mmlu_pro", "humaneval_plus", "mbpp_plus")
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a checkpoint, its tokenizer, and made-up rows."""
    monkeypatch.chdir(tmp_path)
    write_tokenizer(tmp_path / "tokenizer")
    (tmp_path / "model").mkdir()
    model = tiny_model(vocab_size=340, max_sequence_tokens=CONTEXT, pattern="M-")
    write_checkpoint(tmp_path / "model", model, scale=0.3)
    assert cli.main(["eval", "data", "--from", "made"]) == 0
    return tmp_path


def evaluate(*words: str, suite: str = "base") -> int:
    asked = ["eval", "model", "--tokenizer", "tokenizer", "--suite", suite, "--size", "tiny"]
    return cli.main([*asked, *words])


def test_a_checkpoint_goes_through_the_tiny_base_suite(home: Path, capsys: Capture) -> None:
    capsys.readouterr()
    assert cli.main(["eval", "data", "--from", "made", "--json"]) == 0
    rows = {row["dataset"]: row for row in json.loads(capsys.readouterr().out)}
    assert (rows["openai/gsm8k"]["rows"], rows["openai/gsm8k"]["of"]) == (6, 1_319)
    assert evaluate(*SHORT) == 0
    out = capsys.readouterr().out
    texts = ("gsm8k", "math500", "mmlu", "mmlu_pro", "arc_challenge", "race", "winogrande")
    for name in (*texts, "humaneval_plus", "mbpp_plus"):
        assert f"  {name} " in out
    assert "missing" not in out
    folder = home / "evaluations" / "model" / "base-tiny"
    before = (folder / "samples.jsonl").read_bytes()
    assert evaluate("--json", *SHORT) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["runner"], found["size"]) == ("native", "tiny")
    assert found["benchmarks"]["mmlu"]["num_items"] == 4
    assert (folder / "samples.jsonl").read_bytes() == before


def test_another_seed_has_a_folder_of_its_own_and_replaces_nothing(
    home: Path, capsys: Capture
) -> None:
    asked = ("asked=[gsm8k]", *SHORT)
    assert evaluate(*asked) == 0
    folder = home / "evaluations" / "model" / "base-tiny"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert evaluate("--seed", "2", *asked) == 0
    assert (folder.parent / "base-tiny-seed2" / "evaluation.json").is_file()
    assert evaluate("--seed", "2", "--out", str(folder), *asked) == 2
    assert "seed 1, and 2 is asked" in capsys.readouterr().err
    assert evaluate("asked=[math500]", *SHORT) == 2
    assert "gsm8k, which is not asked now" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def put_in_store(folder: Path, *, kind: str, key: str, inputs: dict[str, str]) -> Path:
    """An artifact of a store, as far as others look at it."""
    made = folder / kind / f"{kind}-{key}"
    made.mkdir(parents=True, exist_ok=True)
    manifest = {"format": 1, "key": key, "kind": kind, "inputs": inputs, "files": {}, "recipe": {}}
    (made / "manifest.json").write_text(json.dumps(manifest))
    return made


def trained_store(home: Path, question: str) -> Path:
    """A store elsewhere: documents with a question, the pack of them, and what read the pack."""
    shop = home / "elsewhere"
    documents = put_in_store(shop, kind="curate", key="d1", inputs={})
    row = {"id": "1", "question": question, "trace": "We add.", "answer": "1"}
    (documents / "documents.jsonl").write_text(json.dumps(row) + "\n")
    put_in_store(shop, kind="pack", key="p1", inputs={"documents": "d1", "tokenizer": "t1"})
    write_tokenizer(put_in_store(shop, kind="tokenizer", key="t1", inputs={}))
    inputs = {"pack": "p1", "tokenizer": "t1"}
    model = put_in_store(shop, kind="sft", key="s1", inputs=inputs)
    for path in (home / "model").iterdir():
        path.rename(model / path.name)
    return model


def test_a_folder_of_a_store_is_enough_and_its_own_corpus_is_searched(
    home: Path, capsys: Capture
) -> None:
    rows = (home / "benchmarks" / "openai" / "gsm8k" / "main" / "test.jsonl").read_text()
    question = json.loads(rows.splitlines()[0])["question"]
    model = trained_store(home, question)
    capsys.readouterr()
    words = ["--suite", "base", "--size", "tiny", "--json", "asked=[gsm8k, math500]", *SHORT]
    assert cli.main(["eval", str(model), *words]) == 0
    found = json.loads(capsys.readouterr().out)["benchmarks"]
    mark = "contamination: 1 of 4 questions stand in the training texts"
    assert mark in found["gsm8k"]["marks"]
    assert not any(one.startswith("contamination") for one in found["math500"]["marks"])
    (home / "other.jsonl").write_text('{"text": "nothing of the kind"}\n')
    assert cli.main(["eval", str(model), "--corpus", "other.jsonl", *words]) == 0
    found = json.loads(capsys.readouterr().out)["benchmarks"]
    assert mark not in found["gsm8k"]["marks"], "the texts that are named are those searched"
    (home / "elsewhere" / "curate" / "curate-d1" / "manifest.json").unlink()
    assert cli.main(["eval", str(model), *words]) == 0
    found = json.loads(capsys.readouterr().out)["benchmarks"]
    (gate,) = [one for one in found["gsm8k"]["gates"] if one["name"] == "contamination"]
    assert gate["is_passed"] is None, "a corpus that is gone is not known"


def test_two_checkpoints_are_compared_on_the_same_questions(home: Path, capsys: Capture) -> None:
    (home / "other").mkdir()
    model = tiny_model(vocab_size=340, max_sequence_tokens=CONTEXT, pattern="M-")
    write_checkpoint(home / "other", model, scale=0.1)
    asked = ("asked=[gsm8k, mmlu]", *SHORT)
    capsys.readouterr()
    assert evaluate("--compare", "other", *asked) == 0
    out = capsys.readouterr().out
    assert "on the same questions" in out
    assert "of 2, one below 0.025 counts" in out
    other = home / "evaluations" / "other" / "base-tiny"
    assert (other / "evaluation.json").is_file()
    assert evaluate("--compare", str(other), "--json", *asked) == 0, "a finished one is read"
    found = json.loads(capsys.readouterr().out)["comparison"]
    folder = home / "evaluations" / "model" / "base-tiny"
    assert json.loads((folder / "comparison-other-base-tiny.json").read_text()) == found
    rows = {
        name: [
            one
            for one in map(json.loads, (path / "items.jsonl").read_text().splitlines())
            if one.get("benchmark") == "mmlu"
        ]
        for name, path in (("first", folder), ("second", other))
    }
    shares = {
        name: [
            one["log_likelihoods"].index(max(one["log_likelihoods"])) == one["gold"]
            for one in listed
        ]
        for name, listed in rows.items()
    }
    differences = [a - b for a, b in zip(shares["first"], shares["second"], strict=True)]
    assert found["benchmarks"]["mmlu"]["paired"]["difference"]["value"] == sum(differences) / 4
    page = (folder / "report.html").read_text()
    assert "Beside other evaluations" in page
    assert "rows: made up" in page
    assert "contamination" in page
    assert evaluate("--compare", "gone", *asked) == 2
    assert "eval gone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--suite", "base", "--corpus", "gone.jsonl"], "eval --corpus gone.jsonl"),
        (["--suite", "bse"], "write 'base'"),
        (["--suite", "base", "asked=[gsm8k, mmul]"], "write 'mmlu'"),
        (["--suite", "base", "--data", "nowhere"], "eval data --root nowhere"),
        (["--suite", "base", "--seed", "-1"], "a seed is 0 or more"),
        (["--suite", "base", "--size", "small"], "full, tiny"),
        (["--suite", "base", "--model", "m"], "--model m: a checkpoint that this process asks"),
        (["--suite", "base", "--api-key-env", "KEY"], "leave --api-key-env out"),
        ([], "no --suite"),
    ],
)
def test_wrong_input_is_refused_and_nothing_is_written(
    home: Path, capsys: Capture, words: list[str], says: str
) -> None:
    assert cli.main(["eval", "model", "--tokenizer", "tokenizer", *words]) == 2
    assert says in capsys.readouterr().err
    assert not (home / "evaluations").exists()


def test_a_checkpoint_without_a_tokenizer_is_refused(home: Path, capsys: Capture) -> None:
    assert cli.main(["eval", "model", "--suite", "base", "--size", "tiny"]) == 2
    assert "--tokenizer" in capsys.readouterr().err
    assert not (home / "evaluations").exists()


def test_a_token_that_is_not_there_is_refused(home: Path, capsys: Capture) -> None:
    assert cli.main(["eval", "data", "--from", "hub", "--token-env", "NO_SUCH_TOKEN"]) == 2
    assert "export NO_SUCH_TOKEN" in capsys.readouterr().err


def test_the_commands_beside_it_are_told_and_found(capsys: Capture) -> None:
    for words in (["eval", "--help"], ["eval", "data", "--help"]):
        with pytest.raises(SystemExit):
            cli.main(words)
    told = capsys.readouterr().out
    assert "CHECKPOINT" in told
    assert "eval data" in told
    assert "--token-env" in told


def test_the_plan_of_the_paper_states_its_generations_and_their_price(capsys: Capture) -> None:
    study = load_study("paper_8b")
    runs = [stage for stage in study.stages if stage.kind == "benchmarks"]
    totals = Counter(sum(num_generations(stage.recipe.suite).values()) for stage in runs)
    assert totals == {31_195: 5, 117_304: 16, 115_140: 2}
    (tuned,) = [stage for stage in runs if stage.label == "lmq+shq-x1-seed1.sft"]
    tokens, flops, _ = work_of(tuned)
    assert tokens == 117_304 * 16_384 * ANSWER_SHARE, "a model tuned at 32k writes to its limit"
    assert flops > tokens * 2 * 8e9, "two operations a parameter and token, and attention"
    assert cli.main(["plan", "paper_8b"]) == 0
    told = capsys.readouterr().out
    assert "2,263,119 answers to generate, 31,195 to 117,304 a model" in " ".join(told.split())
    assert " benchmarks " in told
