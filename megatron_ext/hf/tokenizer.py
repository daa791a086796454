"""The tokenizer files of a Hugging Face folder: the study's own tokenizer and chat template."""

import json
import shutil
from pathlib import Path
from typing import Any

import frontload.recipes.schema
from frontload.megatron_ext.checkpoints.files import first_line
from frontload.recipes.artifact import tokenizer_file, write_json
from frontload.recipes.errors import ArtifactError

SPECIAL = {"pad": ("<|pad|>", 0), "eos": ("<|end|>", 1), "unk": ("<|unk|>", 5)}
"""Role -> text and id; those that the chat template writes need no role."""


def token_ids() -> dict[str, int | None]:
    """The ids that configurations name. There is no token before a text."""
    ends = {f"{role}_token_id": SPECIAL[role][1] for role in ("eos", "pad")}
    return {"bos_token_id": None, **ends}


def write_tokenizer(tokenizer: Path, folder: Path, *, max_sequence_tokens: int) -> None:
    """Writes what `AutoTokenizer` reads: the trained file as it is, its roles, the chat template.

    `tokenizer` is a tokenizer.json or a folder that holds one.

    Raises: ArtifactError if it is missing or lacks the study's special tokens.
    """
    file = tokenizer_file(tokenizer) if tokenizer.is_dir() else tokenizer
    try:
        added = json.loads(file.read_text())["added_tokens"]
        special = {token["content"]: token["id"] for token in added if token["special"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"tokenizer {file}",
            found=f"no tokenizer file ({first_line(error)})",
            rule="a tokenizer is a tokenizer.json written by the stage `tokenizer`",
            do="name it with --tokenizer",
        ) from error
    for text, number in SPECIAL.values():
        if special.get(text) != number:
            raise ArtifactError(
                f"tokenizer {file}",
                found=f"the id of {text} is {special.get(text)}",
                rule=f"it is {number}, which the model was trained with",
                do="name the tokenizer of the checkpoint's own study",
            )
    shutil.copyfile(file, folder / "tokenizer.json")
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": max_sequence_tokens,
        "additional_special_tokens": [
            text for text in special if text not in [word for word, _ in SPECIAL.values()]
        ],
    }
    config |= {f"{role}_token": text for role, (text, _) in SPECIAL.items()}
    write_json(folder / "tokenizer_config.json", config)
    template = Path(frontload.recipes.schema.__file__).with_name("chat.jinja")
    shutil.copyfile(template, folder / "chat_template.jinja")
