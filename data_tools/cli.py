"""`frontload data ...`: the table of its commands, and the arguments of two of them."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from frontload.recipes.command_line import Command
from frontload.recipes.errors import RecipeError

HERE = "frontload.data_tools"
COMMANDS: Mapping[str, Command] = {
    "verify": Command(
        text="prove artifacts from their files alone", adds=f"{HERE}.proof.command:add_arguments"
    ),
    "blend": Command(
        text="token budgets to phases: windows, order, ledger",
        adds=f"{HERE}.blending.command:add_arguments",
        overrides="sequence_tokens=4_096",
        names=("blends",),
    ),
    "peek": Command(
        text="show rows, documents or samples of an artifact",
        adds=f"{HERE}.shown.peek:add_arguments",
    ),
    "pack": Command(
        text="conversations to SFT rows with a loss mask",
        adds=f"{HERE}.packing.command:add_arguments",
    ),
    "explain": Command(
        text="files and rows behind a sample or document",
        adds=f"{HERE}.shown.explain_command:add_arguments",
    ),
    "tokenizer": Command(
        text="train a byte-level BPE on raw files",
        adds=f"{HERE}.tokenizer_command:add_arguments",
    ),
    "preprocess": Command(
        text="JSONL or Parquet to Megatron .bin/.idx",
        adds=f"{HERE}.preprocess.command:add_arguments",
    ),
    "merge": Command(
        text="the shards of a preprocess to one output",
        adds=f"{HERE}.preprocess.command:add_merge_arguments",
    ),
    "curate": Command(
        text="raw data sets to named sets: adapters, duplicates, benchmarks, overlap",
        adds=f"{HERE}.curation.command:add_arguments",
        overrides="seed=2",
        names=("curations",),
    ),
    "export": Command(
        text="a pack for Megatron-Bridge, or a blend for Megatron-LM",
        adds=f"{HERE}.exports.command:add_export_arguments",
    ),
    "card": Command(
        text="a data set card with licences and origins",
        adds=f"{HERE}.exports.command:add_card_arguments",
    ),
    "crossthink": Command(
        text="Nemotron-CrossThink JSONL to veRL parquet",
        adds=f"{HERE}.cli:add_crossthink_arguments",
    ),
    "synth": Command(
        text="write the procedural corpus of a study",
        adds=f"{HERE}.cli:add_synth_arguments",
        overrides="synthesis.seed=2",
        names=("studies",),
    ),
}


def add_crossthink_arguments(cross: argparse.ArgumentParser) -> None:
    """Those of `crossthink`."""
    cross.add_argument(
        "--qa", type=Path, required=True, metavar="FILE", help="JSONL of its QA rows"
    )
    cross.add_argument(
        "--math", type=Path, required=True, metavar="FILE", help="JSONL of its math rows"
    )
    cross.add_argument("--general-to-math", default="2:1", help="rows of each (default 2:1)")
    cross.add_argument(
        "--out", type=Path, required=True, metavar="FILE.parquet", help="what is written"
    )
    cross.add_argument(
        "--tokenizer",
        type=Path,
        required=True,
        help="of the model: its folder, or a tokenizer.json",
    )
    cross.add_argument(
        "--prompt-tokens", type=int, required=True, metavar="N", help="longer prompts are dropped"
    )
    cross.add_argument("--seed", type=int, default=1, help="draws and shuffles (default 1)")
    cross.add_argument(
        "--instruction", default="", help="added to prompts that do not name \\boxed (default none)"
    )
    cross.add_argument(
        "--validation-rows", type=int, default=0, metavar="N", help="prompts kept out of training"
    )
    cross.add_argument("--validation-out", type=Path, metavar="FILE.parquet", help="where those go")
    cross.set_defaults(run=run_crossthink)


def add_synth_arguments(synth: argparse.ArgumentParser) -> None:
    """Those of `synth`."""
    synth.add_argument("study", metavar="STUDY", help="name or path of a study")
    synth.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="made by this")
    synth.set_defaults(run=run_synth)


def run_crossthink(arguments: argparse.Namespace) -> int:
    """Writes FILE.parquet and FILE.parquet.manifest.json, and prints every count."""
    from frontload.data_tools.prompts.crossthink import CrossThinkRequest, convert_crossthink
    from frontload.data_tools.prompts.length import load_limit

    manifest = convert_crossthink(
        CrossThinkRequest(
            qa=arguments.qa,
            math=arguments.math,
            out=arguments.out,
            limit=load_limit(arguments.tokenizer, arguments.prompt_tokens),
            general_to_math=arguments.general_to_math,
            seed=arguments.seed,
            instruction=arguments.instruction,
            validation_rows=arguments.validation_rows,
            validation_out=arguments.validation_out,
        )
    )
    for domain, written in manifest["rows"]["written"].items():
        print(
            f"{domain}: {written} of {manifest['rows']['read'][domain]} rows,"
            f" {manifest['left_out_by_the_blend'][domain]} left out by the blend,"
            f" dropped {manifest['dropped'][domain] or 'none'}"
        )
    print(f"{manifest['prompts_without_boxed']} prompts do not name \\boxed")
    if "validation" in manifest:
        print(f"{manifest['validation']['rows']} of the prompts are for validation")
    return 0


def run_synth(arguments: argparse.Namespace) -> int:
    """Writes the corpus that the study would train on."""
    from frontload.data_tools.disk.publish import make_folder
    from frontload.data_tools.synthetic.corpus import write_corpus
    from frontload.recipes.study.expand import load_study

    study = load_study(arguments.study, overrides=arguments.overrides)
    if study.recipe.synthesis is None:
        raise RecipeError(
            f"synth {arguments.study}",
            found="a study of a user's own data",
            rule="only a study with `synthesis` has a procedural corpus",
            do="name another study, for example laptop",
        )
    make_folder(arguments.out, asked="--out")
    write_corpus(study.recipe.synthesis, arguments.out)
    print(f"wrote {arguments.out}", file=sys.stderr)
    return 0
