"""`frontload data ...`: parses, calls, prints; exit code."""

import argparse
import sys
from pathlib import Path

from frontload.data_tools import explain_command, tokenizer_command
from frontload.data_tools.blending import command as blend_command
from frontload.data_tools.crossthink import CrossThinkRequest, convert_crossthink
from frontload.data_tools.curation import command as curation_command
from frontload.data_tools.packing import command as pack_command
from frontload.data_tools.peek import command as peek_command
from frontload.data_tools.preprocess import command as preprocess_command
from frontload.data_tools.proof import command as proof_command
from frontload.data_tools.publish import make_folder
from frontload.recipes.errors import RecipeError
from frontload.recipes.study import load_study


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the commands of this room; each sets `run` to a function from arguments to exit code."""
    proof_command.add_command(subparsers)
    blend_command.add_command(subparsers)
    peek_command.add_command(subparsers)
    pack_command.add_command(subparsers)
    explain_command.add_command(subparsers)
    tokenizer_command.add_command(subparsers)
    preprocess_command.add_command(subparsers)
    curation_command.add_command(subparsers)

    cross = subparsers.add_parser("crossthink", help="Nemotron-CrossThink JSONL to veRL parquet")
    cross.add_argument("--qa", type=Path, required=True, metavar="FILE")
    cross.add_argument("--math", type=Path, required=True, metavar="FILE")
    cross.add_argument("--general-to-math", default="2:1", help="rows of each (default 2:1)")
    cross.add_argument("--out", type=Path, required=True, metavar="FILE.parquet")
    cross.add_argument("--seed", type=int, default=1, help="draws and shuffles (default 1)")
    cross.add_argument(
        "--instruction", default="", help="added to prompts that do not name \\boxed (default none)"
    )
    cross.add_argument(
        "--validation-rows", type=int, default=0, metavar="N", help="prompts kept out of training"
    )
    cross.add_argument("--validation-out", type=Path, metavar="FILE.parquet", help="where those go")
    cross.set_defaults(run=run_crossthink)

    synth = subparsers.add_parser("synth", help="write the procedural corpus of a study")
    synth.add_argument("study", metavar="STUDY", help="name or path of a study")
    synth.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE")
    synth.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    synth.set_defaults(run=run_synth)


def run_crossthink(arguments: argparse.Namespace) -> int:
    """Writes FILE.parquet and FILE.parquet.manifest.json, and prints every count."""
    manifest = convert_crossthink(
        CrossThinkRequest(
            qa=arguments.qa,
            math=arguments.math,
            out=arguments.out,
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
    from frontload.data_tools.synthetic.corpus import write_corpus

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
