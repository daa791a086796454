"""The tokenizer and chat template of a model that is not ours: bytes, and turns between marks."""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from frontload.data_tools.prompts.length import PromptLimit, load_limit

TEMPLATE = (
    "{%- for message in messages %}<s>{{ message.role }}\n{{ message.content }}</s>{% endfor %}"
    "{%- if add_generation_prompt %}<s>assistant\n{% endif %}"
)


def write_model_tokenizer(folder: Path) -> Path:
    """What AutoTokenizer and veRL read of a model folder."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {word: number for number, word in enumerate(["<s>", "</s>", *letters])}
    library = Tokenizer(models.BPE(vocabulary, []))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens([AddedToken(token, special=True) for token in ("<s>", "</s>")])
    library.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def wide_limit(folder: Path) -> PromptLimit:
    """A limit that no prompt of a test reaches."""
    return load_limit(write_model_tokenizer(folder), 100_000)
