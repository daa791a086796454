"""Which tokens end what a model writes: with our tokenizer, or that of a Hugging Face folder."""

from collections.abc import Mapping
from typing import Any

from frontload.data_tools.disk.files import read_json
from frontload.data_tools.text.tokenizer import END, TextTokenizer
from frontload.recipes.errors import RecipeError

GENERATION, CONFIG = "generation_config.json", "tokenizer_config.json"


def end_tokens(tokenizer: TextTokenizer) -> tuple[int, ...]:
    """The ids after which a response is over; a text without context starts behind the first.

    `<|end|>` of a tokenizer of ours. Else what the files beside the tokenizer name: the
    `eos_token_id` of generation_config.json, as transformers has it, which of a chat model ends a
    turn; without it the `eos_token` of tokenizer_config.json.

    Raises: RecipeError where they name none.
    """
    if tokenizer.is_ours:
        return (END,)
    stated = _read(tokenizer, GENERATION).get("eos_token_id")
    found = stated if isinstance(stated, list) else [stated]
    if found == [None]:
        token = _read(tokenizer, CONFIG).get("eos_token")
        text = token.get("content") if isinstance(token, Mapping) else token
        found = [tokenizer.token_id(text)] if isinstance(text, str) else []
    ends = tuple(dict.fromkeys(one for one in found if isinstance(one, int)))
    if not ends:
        raise RecipeError(
            f"tokenizer {tokenizer.file}",
            found=f"no token that ends a text: no {GENERATION} or {CONFIG} beside it names one",
            rule="a model is asked until it writes the token that ends its text",
            do=f'add "eos_token_id" to {GENERATION} beside it',
        )
    return ends


def _read(tokenizer: TextTokenizer, name: str) -> Mapping[str, Any]:
    file = tokenizer.file.with_name(name)
    found = read_json(file) if file.is_file() else {}
    return found if isinstance(found, Mapping) else {}
