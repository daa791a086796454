"""lm-eval's own models of a server, on ours, against the model in this process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate
from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI

from frontload.data_tools.text.render import encode_prompts
from frontload.data_tools.text.tokenizer import END
from frontload.eval.asking.harness import local_task
from frontload.eval.asking.lm_eval_model import FrontloadLM
from frontload.eval.asking.prompts import FewShotPrompt
from frontload.eval.suites import ChoiceItem, FewShotItem, items_of_suite, read_items
from frontload.megatron_ext.hf.tokenizer import write_tokenizer
from frontload.megatron_ext.inference.draws import Sampling
from tests.unit.eval.fake_study import recipe
from tests.unit.eval_serving.small_server import CONTEXT, NAME, Running, Small


@pytest.fixture(scope="module")
def folder(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tokenizer as stock tools read it."""
    found = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(small.corpus / "tokenizer.json", found, max_sequence_tokens=CONTEXT)
    return found


def settings(running: Running, folder: Path, route: str) -> dict[str, Any]:
    return {
        "model": NAME,
        "base_url": f"{running.url}/{route}",
        "tokenizer": str(folder),
        "tokenizer_backend": "huggingface",
        "num_concurrent": 8,
        "max_retries": 1,
        "max_length": CONTEXT,
    }


def answers_of(lm: LM, tasks: dict[str, Any], **options: Any) -> dict[str, list[Any]]:
    """What a model answered, by item."""
    found: Any = evaluate(
        lm,
        {"tasks": tasks, "groups": {}, "group_map": {}},
        bootstrap_iters=0,
        log_samples=True,
        **options,
    )
    return {row["doc"]["id"]: row["resps"] for rows in found["samples"].values() for row in rows}


def test_log_likelihoods_of_local_completions_are_those_in_process(
    small: Small, running: Running, folder: Path
) -> None:
    items = items_of_suite(read_items(small.corpus / "items.jsonl"), "base")
    choices = [item for item in items if isinstance(item, ChoiceItem)]
    found = []
    for lm in (
        FrontloadLM(small.model, small.tokenizer),
        LocalCompletionsAPI(**settings(running, folder, "completions"), batch_size=4),
    ):
        task = local_task("choice", choices, prompts={}, recipe=recipe("base"))
        found.append(answers_of(lm, {"choice": task}))
    ours, served = found
    assert len(ours) == len(choices) > 5
    options = [
        (one, other)
        for name in ours
        for ((one,), (other,)) in zip(ours[name], served[name], strict=True)
    ]
    assert [one[0] for one, _ in options] == pytest.approx([o[0] for _, o in options], abs=1e-4)
    assert [bool(one[1]) for one, _ in options] == [bool(other[1]) for _, other in options]
    assert len({one[0] for one, _ in options}) > len(choices)


def test_texts_of_local_completions_and_of_chats_are_those_in_process(
    small: Small, running: Running, folder: Path
) -> None:
    items = [i for i in read_items(small.corpus / "items.jsonl") if isinstance(i, FewShotItem)][:6]
    asked = [item.question for item in items]
    prompts = {
        item.id: FewShotPrompt(text=item.question, num_tokens=0, num_shots=0) for item in items
    }

    def task() -> dict[str, Any]:
        made = local_task("written", items, prompts=prompts, recipe=recipe("base"))
        options = {"until": ["box"], "max_gen_toks": 20, "temperature": 0.0, "do_sample": False}
        made.set_config("generation_kwargs", options | {"skip_special_tokens": False})
        return {"written": made}

    text = LocalCompletionsAPI(**settings(running, folder, "completions"), batch_size=2)
    chat = LocalChatCompletion(**settings(running, folder, "chat/completions"))
    found = {
        "text": answers_of(text, task()),
        "chat": answers_of(chat, task(), apply_chat_template=True),
    }
    ids = {
        "text": [small.tokenizer.encode(one) for one in asked],
        "chat": encode_prompts(small.tokenizer, asked),
    }
    for kind, answers in found.items():
        expected = small.model.generate(
            ids[kind], Sampling(max_new_tokens=20, temperature=0.0, seed=0, stop_token=END)
        )
        for item, (tokens,) in zip(items, expected, strict=True):
            whole = small.tokenizer.decode(tokens[:-1] if tokens[-1] == END else tokens)
            assert answers[item.id] == [[whole.split("box")[0]]], (kind, item.id)
