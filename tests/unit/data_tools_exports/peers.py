"""The readers of the peers: Megatron-Bridge's packed Parquet, Megatron-Core's blends."""

import json
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

BRIDGE = Path(sys.prefix) / "bridge/megatron/bridge"
EMPTIED = ("", ".data", ".data.datasets", ".data.packing", ".training", ".training.tokenizers")
EMPTIED += (".utils",)
"""Packages whose own imports (models, Transformer Engine) a reader of files does not need."""


def bridge_reader(file: Path, *, sequence_tokens: int, eos_id: int) -> Any:
    """Megatron-Bridge's own GPTSFTPackedParquetDataset of a file."""
    with pytest.MonkeyPatch.context() as patch:
        for name in EMPTIED:
            module = types.ModuleType(f"megatron.bridge{name}")
            module.__path__ = [str(BRIDGE.joinpath(*name.split(".")[1:]))]
            patch.setitem(sys.modules, module.__name__, module)
        tokenizer: Any = types.ModuleType("megatron.bridge.training.tokenizers.tokenizer")
        tokenizer.MegatronTokenizer = object  # an annotation
        patch.setitem(sys.modules, tokenizer.__name__, tokenizer)
        ranks: Any = types.ModuleType("megatron.bridge.utils.common_utils")
        ranks.get_local_rank_preinit = lambda: 0  # of one process; the module imports Megatron
        patch.setitem(sys.modules, ranks.__name__, ranks)
        import megatron.bridge.data.packing.parquet as packing  # pyright: ignore

        return packing.GPTSFTPackedParquetDataset(
            file_path=str(file),
            tokenizer=SimpleNamespace(eos_id=eos_id),
            max_seq_length=sequence_tokens,
            max_num_samples=None,
            pad_seq_length_to_mult=1,
            add_bos=False,
            add_eos=False,
            answer_only_loss=True,
            prompt_template="{input} {output}",  # of rows that are not packed
            label_key="output",
            truncation_field="input",
        )


def megatron_blend(folder: Path, *, num_samples: int, sequence_tokens: int, cache: Path) -> Any:
    """The training set that Megatron-Core builds of an exported phase."""
    from megatron.core.datasets.blended_megatron_dataset_builder import (
        BlendedMegatronDatasetBuilder,
    )
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.utils import get_blend_from_list

    per_split = json.loads((folder / "per_split_data_args.json").read_text())
    config = GPTDatasetConfig(
        random_seed=1,
        sequence_length=sequence_tokens,
        blend_per_split=[get_blend_from_list(per_split[name]) for name in per_split],
        path_to_cache=str(cache),
        tokenizer=SimpleNamespace(
            eod=0, pad=0, vocab_size=100, unique_identifiers={"class": "test"}
        ),  # type: ignore[arg-type]
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
    )
    builder = BlendedMegatronDatasetBuilder(GPTDataset, [num_samples, 0, 0], lambda: True, config)
    return builder.build()[0]
