"""Golden texts and masks of the one chat template."""

from pathlib import Path

import pytest

from frontload.data_tools.text import train_tokenizer
from frontload.data_tools.text.chat import our_template
from frontload.data_tools.text.document import BaseText, Conversation
from frontload.data_tools.text.render import (
    base_text,
    encode_few_shot_prompt,
    encode_prompts,
    encode_rows,
    generation_prompt,
    response,
)
from frontload.data_tools.text.tokenizer import ANSWER, ASSISTANT, END, USER, TextTokenizer
from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import Tokenizer
from tests.unit.data_tools.room import Room

WORKED = Conversation(
    id="x", question="1 plus 2 ?", trace="1 plus 2 is 3", answer="3", family="f", domain="math"
)
BARE = Conversation(id="y", question="1 plus 2 ?", trace="", answer="3", family="f", domain="math")


@pytest.fixture(scope="module")
def words(built_room: Room) -> TextTokenizer:
    return TextTokenizer.load(built_room.folder / "tokenizer")


@pytest.fixture(scope="module")
def byte_pairs(built_room: Room) -> TextTokenizer:
    recipe = Tokenizer(kind="byte_bpe", vocab_size=400)
    return train_tokenizer.train(recipe, [built_room.corpus / "shq.jsonl"]).tokenizer


def test_texts_are_the_golden_ones() -> None:
    assert generation_prompt("1 plus 2 ?") == "<|user|> 1 plus 2 ? <|assistant|>"
    assert response("1 plus 2 is 3", "3") == " 1 plus 2 is 3 <|answer|> 3 <|end|>"
    assert response("", "3") == " <|answer|> 3 <|end|>"
    assert base_text("some text") == "some text <|end|>"
    assert base_text("some text", append_eod=False) == "some text"


def test_content_is_not_read_as_a_template() -> None:
    assert generation_prompt("{{ 1 + 1 }} & <b>") == "<|user|> {{ 1 + 1 }} & <b> <|assistant|>"
    assert base_text("two\n\nparagraphs\n") == "two\n\nparagraphs\n <|end|>"


def test_mask_covers_the_response_by_position(words: TextTokenizer) -> None:
    worked, bare, text = encode_rows(words, [WORKED, BARE, BaseText(id="t", text="w1 w2")])
    assert worked.tokens_S[[0, 5, 11, 13]].tolist() == [USER, ASSISTANT, ANSWER, END]
    assert worked.loss_mask_S.tolist() == [0] * 6 + [1] * 8
    assert bare.loss_mask_S.tolist() == [0] * 6 + [1] * 3
    assert text.loss_mask_S.tolist() == [1, 1, 1]


@pytest.mark.parametrize("kind", ["words", "byte_pairs"])
def test_pieces_encode_as_the_whole_text(kind: str, request: pytest.FixtureRequest) -> None:
    """lm-eval and Hugging Face users encode the whole text at once."""
    tokenizer: TextTokenizer = request.getfixturevalue(kind)
    text = generation_prompt(WORKED.question) + response(WORKED.trace, WORKED.answer)
    assert encode_rows(tokenizer, [WORKED])[0].tokens_S.tolist() == tokenizer.encode(text)


def test_prompt_is_the_head_of_the_document(words: TextTokenizer) -> None:
    (prompt,) = encode_prompts(words, [WORKED.question])
    assert encode_rows(words, [WORKED])[0].tokens_S[: len(prompt)].tolist() == prompt


def test_few_shot_prompt_is_whole_documents_then_the_prompt(words: TextTokenizer) -> None:
    prompt = encode_few_shot_prompt(words, [WORKED, BARE], question="5 plus 6 ?")
    documents = [one.tokens_S.tolist() for one in encode_rows(words, [WORKED, BARE])]
    assert prompt == documents[0] + documents[1] + encode_prompts(words, ["5 plus 6 ?"])[0]


@pytest.mark.parametrize("render", [generation_prompt, base_text, lambda t: response(t, "3")])
def test_a_marker_inside_content_is_refused(render: object) -> None:
    with pytest.raises(RecipeError, match="a special token inside it"):
        render("say <|assistant|> twice")  # type: ignore[operator]


def test_template_in_the_form_of_hugging_face_chats(words: TextTokenizer) -> None:
    """The exported tokenizer carries the template: a chat and its pieces are one text."""
    messages = [
        {"role": "user", "content": "1 plus 2 ?"},
        {"role": "assistant", "reasoning_content": "1 plus 2 is 3", "content": "3"},
    ]
    whole = our_template().render(messages)
    assert whole == generation_prompt(WORKED.question) + response(WORKED.trace, WORKED.answer)


@pytest.mark.parametrize("trace", ["", "so it is"])
def test_short_way_of_rendering_is_the_templates(trace: str) -> None:
    texts = {"content": "3 {{ x }}", "reasoning_content": trace}
    rendered = our_template().render([{"role": "assistant", **texts}])
    assert rendered == response(trace, "3 {{ x }}")
    rendered = our_template().render([{"role": "text", **texts}])
    assert rendered == base_text("3 {{ x }}")


def test_template_file_lies_with_the_recipes() -> None:
    import frontload.recipes.schema as schema

    assert Path(schema.__file__).with_name("chat.jinja").is_file()
