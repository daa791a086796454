"""What an lm-eval task asks of a generation: done as lm-eval says, or refused by name."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate

from frontload.data_tools.text.render import generation_prompt, response
from frontload.data_tools.text.tokenizer import END, TextTokenizer
from frontload.eval.asking.generation_options import cut, generation_options
from frontload.eval.asking.harness import HarnessRows
from frontload.eval.asking.lm_eval_model import FrontloadLM
from frontload.megatron_ext.inference.draws import Sampling
from frontload.recipes.errors import RecipeError
from tests.unit.eval.fake_study import BigramModel, write_corpus
from tests.unit.eval.test_lm_eval_model import asked


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, per_family=3)
    return TextTokenizer.load(folder)


class Recording(BigramModel):
    """A bigram model that keeps what it is asked, and may write `<|end|>` after three tokens."""

    asked: Mapping[str, Any]
    ends = False

    def generate(self, prompts: list[list[int]], sampling: Sampling) -> list[list[list[int]]]:
        self.asked = asdict(sampling)
        made = super().generate(prompts, sampling)
        return [[row[:3] + [END] for row in rows] for rows in made] if self.ends else made


def answers(lm: FrontloadLM, *requests: tuple[str, dict[str, Any]]) -> list[str]:
    return lm.generate_until([asked(*one) for one in requests])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("options", "temperature", "new_tokens"),
    [
        ({"until": []}, 0.0, 256),  # lm-eval's default, not the model's whole context
        ({"temperature": 0.7}, 0.7, 256),  # sampled without do_sample, as lm-eval reads it
        ({"do_sample": True, "temperature": 0.6}, 0.6, 256),
        ({"do_sample": False, "temperature": 0.6}, 0.0, 256),
        ({"max_gen_toks": 4}, 0.0, 4),
        ({"max_new_tokens": 5}, 0.0, 5),
        ({"max_tokens": 6}, 0.0, 6),
        ({"max_completion_tokens": 7}, 0.0, 7),
        ({"max_gen_toks": 7, "max_tokens": 7}, 0.0, 7),
        ({"top_p": 0.95, "do_sample": False}, 0.0, 256),  # greedy: nothing to cut off
        ({"temperature": 0.6, "top_p": 1.0, "top_k": -1, "min_p": 0.0}, 0.6, 256),
        ({"repetition_penalty": 1.0, "presence_penalty": 0.0, "num_beams": 1}, 0.0, 256),
        ({"frequency_penalty": 0.0, "length_penalty": 1.0, "use_cache": True}, 0.0, 256),
        ({"temperature": 0.6, "top_k": 0, "typical_p": 1.0, "no_repeat_ngram_size": 0}, 0.6, 256),
    ],
)
def test_options_reach_the_model(
    tokenizer: TextTokenizer, options: dict[str, Any], temperature: float, new_tokens: int
) -> None:
    model = Recording(tokenizer.vocab_size)
    answers(FrontloadLM(model, tokenizer), ("the box", options | {"seed": 3}))
    assert model.asked["temperature"] == temperature
    assert model.asked["max_new_tokens"] == new_tokens
    assert model.asked["seed"] == 3
    assert model.asked["stop_token"] == END


@pytest.mark.parametrize(
    ("options", "top_p"),
    [
        ({"temperature": 0.6, "top_p": 0.95}, 0.95),
        ({"temperature": 0.6, "top_p": 1}, 1.0),
        ({"temperature": 0.6}, 1.0),
        ({"temperature": 0.6, "do_sample": False, "top_p": 0.5}, 1.0),
    ],
)
def test_a_nucleus_reaches_the_model(
    tokenizer: TextTokenizer, options: dict[str, Any], top_p: float
) -> None:
    model = Recording(tokenizer.vocab_size)
    answers(FrontloadLM(model, tokenizer), ("the box", options))
    assert model.asked["top_p"] == top_p


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"temperature": 0.6, "top_p": 0}, "top_p: 0"),
        ({"temperature": 0.6, "top_p": 1.5}, "top_p: 1.5"),
        ({"temperature": 0.6, "top_p": float("nan")}, "top_p: nan"),
        ({"temperature": 0.6, "top_p": "most"}, "top_p: most"),
        ({"temperature": 0.6, "top_p": True}, "top_p: True"),
        ({"temperature": 0.6, "top_k": 40}, "top_k: 40"),
        ({"temperature": 0.6, "min_p": 0.1}, "min_p: 0.1"),
        ({"repetition_penalty": 1.1}, "repetition_penalty: 1.1"),
        ({"presence_penalty": 1.0}, "presence_penalty: 1.0"),
        ({"num_beams": 4}, "num_beams: 4"),
        ({"max_length": 100}, "max_length: 100"),
        ({"guided_choice": ["a"]}, "guided_choice"),
        ({"do_sample": True}, "do_sample: true with temperature: none"),
        ({"do_sample": True, "temperature": 0.0}, "do_sample: true with temperature: 0.0"),
        ({"max_gen_toks": 4, "max_tokens": 5}, "max_gen_toks: 4, max_tokens: 5"),
        ({"max_gen_toks": 0}, "max_gen_toks: 0"),
        ({"until": [3]}, "until"),
    ],
)
def test_an_option_that_cannot_be_done_is_refused_by_name(
    options: dict[str, Any], named: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        generation_options(options)
    assert named in caught.value.found
    assert caught.value.do


@pytest.mark.parametrize(
    ("until", "text"),
    [
        ("Question:", "4 apples "),  # a text is one mark, not nine letters
        (["Question:"], "4 apples "),
        (["apples", "4"], ""),
        ([""], "4 apples Question: 5"),
        ([], "4 apples Question: 5"),
        (None, "4 apples Question: 5"),
    ],
)
def test_an_answer_ends_at_the_first_of_its_stop_texts(until: Any, text: str) -> None:
    assert cut("4 apples Question: 5", generation_options({"until": until}).until) == text


def test_each_request_has_its_own_options(tokenizer: TextTokenizer) -> None:
    lm = FrontloadLM(BigramModel(tokenizer.vocab_size), tokenizer)
    short, long = ({"max_gen_toks": count} for count in (2, 5))
    found = answers(lm, ("the box", long), ("the box", short), ("the cup", long))
    assert [len(text.split()) for text in found] == [5, 2, 5]
    assert found[0].startswith(found[1])


def test_the_end_token_stays_only_where_its_grader_looks_for_it(tokenizer: TextTokenizer) -> None:
    model = Recording(tokenizer.vocab_size)
    model.ends = True
    foreign = answers(FrontloadLM(model, tokenizer), ("the box", {}))[0]
    ours = answers(FrontloadLM(model, tokenizer, shows_end=True), ("the box", {}))[0]
    assert ours == f"{foreign} <|end|>"
    assert len(foreign.split()) == 3


def test_a_chat_task_of_lm_eval_runs_with_this_projects_template(tokenizer: TextTokenizer) -> None:
    """lm-eval forms the messages of two worked examples and the question, and asks for the text."""
    rows = HarnessRows(
        {"question": f"the box {n} holds", "answer": f"a ring {n}"} for n in range(4)
    )
    task = ConfigurableTask(
        config={
            "task": "chat",
            "custom_dataset": lambda **_: {"test": rows, "train": rows},
            "test_split": "test",
            "fewshot_split": "train",
            "fewshot_config": {"sampler": "first_n"},
            "num_fewshot": 2,
            "doc_to_text": "question",
            "doc_to_target": "answer",
            "output_type": "generate_until",
            "generation_kwargs": {"until": "<|answer|>", "max_gen_toks": 4},
            "metric_list": [{"metric": "exact_match"}],
        }
    )
    lm = FrontloadLM(BigramModel(tokenizer.vocab_size), tokenizer)
    found: Any = evaluate(
        lm,
        {"tasks": {"chat": task}, "groups": {}, "group_map": {}},
        apply_chat_template=True,
        fewshot_as_multiturn=True,
        bootstrap_iters=0,
        log_samples=True,
    )
    sample = found["samples"]["chat"][-1]
    expected = "".join(
        generation_prompt(f"the box {n} holds") + response("", f"a ring {n}") for n in range(2)
    ) + generation_prompt("the box 3 holds")
    assert sample["arguments"][0][0] == expected
    (answer,) = answers(lm, (expected, {"until": "<|answer|>", "max_gen_toks": 4}))
    assert sample["resps"][0][0] == answer


def test_the_name_of_a_tokenizer_is_its_vocabularys(
    tmp_path: Path, tokenizer: TextTokenizer
) -> None:
    (tmp_path / "other").mkdir()
    write_corpus(tmp_path / "other", per_family=1)
    other = TextTokenizer.load(tmp_path / "other")
    model = BigramModel(tokenizer.vocab_size)
    names = {FrontloadLM(model, one).tokenizer_name for one in (tokenizer, other, tokenizer)}
    assert len(names) == 2


@pytest.mark.parametrize(
    ("messages", "is_prompt", "named"),
    [
        ([("system", "be brief"), ("user", "hi")], True, "role 'system'"),
        ([("user", "hi <|answer|> 5")], True, "special token"),
        ([("user", "hi"), ("assistant", "It is")], False, "go on from"),
    ],
)
def test_messages_that_the_template_cannot_say_are_refused(
    tokenizer: TextTokenizer, messages: list[tuple[str, str]], *, is_prompt: bool, named: str
) -> None:
    lm = FrontloadLM(BigramModel(tokenizer.vocab_size), tokenizer)
    history = [{"role": role, "content": text} for role, text in messages]
    with pytest.raises(RecipeError, match=named):
        lm.apply_chat_template(history, add_generation_prompt=is_prompt)


def test_a_template_of_another_name_is_refused(tokenizer: TextTokenizer) -> None:
    lm = FrontloadLM(BigramModel(tokenizer.vocab_size), tokenizer)
    assert lm.apply_chat_template([{"role": "user", "content": "hi"}]) == generation_prompt("hi")
    assert lm.chat_template(False) is None
    assert "<|answer|>" in str(lm.chat_template(True))
    with pytest.raises(RecipeError, match="chatml"):
        lm.chat_template("chatml")
