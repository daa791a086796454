"""`frontload data verify|peek|preprocess|crossthink|synth`: parses, calls, prints; exit code."""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from frontload.data_tools.blending.ledger import plan_readings
from frontload.data_tools.crossthink import CrossThinkRequest, convert_crossthink
from frontload.data_tools.files import read_json
from frontload.data_tools.indexed import IndexedReader, idx_file
from frontload.data_tools.preprocess import PreprocessRequest, preprocess
from frontload.data_tools.tokenizer import TextTokenizer
from frontload.data_tools.verify import Check, verify_blend, verify_index, verify_pack
from frontload.recipes.artifact import documents_file, index_prefix
from frontload.recipes.errors import RecipeError
from frontload.recipes.study import load_study

KIND_OF_FILE = {
    "plan.json": "blend",
    "pack.json": "pack",
    "index.json": "index",
    "composition.json": "curate",
    "items.jsonl": "corpus",
    "tokenizer.json": "tokenizer",
}
"""The file that tells an artifact's kind."""


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the commands of this room; each sets `run` to a function from arguments to exit code."""
    verify = subparsers.add_parser("verify", help="prove artifacts from their files alone")
    verify.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    verify.set_defaults(run=run_verify)

    peek = subparsers.add_parser("peek", help="show the first rows and the counts of an artifact")
    peek.add_argument("folder", type=Path, metavar="FOLDER")
    peek.add_argument("--rows", type=int, default=3, help="how many rows (default 3)")
    peek.add_argument("--tokenizer", type=Path, help="decodes the tokens of an index or a pack")
    peek.set_defaults(run=run_peek)

    raw = subparsers.add_parser("preprocess", help="JSONL to Megatron .bin/.idx")
    raw.add_argument("--input", nargs="+", type=Path, required=True, metavar="FILE")
    raw.add_argument("--output-prefix", type=Path, required=True, metavar="P")
    raw.add_argument("--tokenizer", type=Path, required=True, metavar="FILE_OR_DIR")
    raw.add_argument("--json-key", default="text", help="field that holds the text (default text)")
    raw.add_argument("--append-eod", action="store_true", help="end every document with <|end|>")
    raw.add_argument("--workers", type=int, default=1, help="processes; the bytes do not depend")
    raw.set_defaults(run=run_preprocess)

    cross = subparsers.add_parser("crossthink", help="Nemotron-CrossThink JSONL to veRL parquet")
    cross.add_argument("--qa", type=Path, required=True, metavar="FILE")
    cross.add_argument("--math", type=Path, required=True, metavar="FILE")
    cross.add_argument("--general-to-math", default="2:1", help="rows of each (default 2:1)")
    cross.add_argument("--out", type=Path, required=True, metavar="FILE.parquet")
    cross.add_argument("--seed", type=int, default=1, help="draws and shuffles (default 1)")
    cross.add_argument(
        "--instruction", default="", help="added to prompts that do not name \\boxed (default none)"
    )
    cross.set_defaults(run=run_crossthink)

    synth = subparsers.add_parser("synth", help="write the procedural corpus of a study")
    synth.add_argument("study", metavar="STUDY", help="name or path of a study")
    synth.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    synth.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    synth.set_defaults(run=run_synth)


def run_verify(arguments: argparse.Namespace) -> int:
    """Checks every folder; 1 when a statement about one of them does not hold."""
    folders: list[Path] = arguments.folders
    kinds = {folder: folder_kind(folder) for folder in folders}
    refused = 0
    for folder, kind in kinds.items():
        checks = _checks(folder, kind, among=kinds)
        print(f"{kind} {folder}")
        for check in checks:
            print(f"  {'ok   ' if check.holds else 'WRONG'} {check.claim}: {check.found}")
        refused += sum(not check.holds for check in checks)
    print(f"{refused} statements do not hold" if refused else "all statements hold")
    return 1 if refused else 0


def folder_kind(folder: Path) -> str:
    """The kind of an artifact, told by the files in it.

    Raises: RecipeError when the folder is none.
    """
    for name, kind in KIND_OF_FILE.items():
        if (folder / name).is_file():
            return kind
    raise RecipeError(
        f"folder {folder}",
        found="no such folder" if not folder.is_dir() else "none of the files that tell a kind",
        rule=f"an artifact of this room holds one of {', '.join(KIND_OF_FILE)}",
        do="give the folder of a finished artifact, as `frontload status` prints it",
    )


def _checks(folder: Path, kind: str, *, among: dict[Path, str]) -> list[Check]:
    if kind == "index":
        return verify_index(folder)
    if kind == "pack":
        return verify_pack(folder)
    if kind == "blend":
        candidates = [other for other, other_kind in among.items() if other_kind == "index"]
        blends = [other for other in among if among[other] == "blend"]
        earlier = earlier_phases(folder, blends)
        return verify_blend(folder, find_indexes(folder, candidates), others=earlier)
    raise RecipeError(
        f"verify {folder}",
        found=f"an artifact of kind {kind}",
        rule="index, blend and pack have something to prove beyond the store's checksums",
        do="use `frontload data peek` to look at it",
    )


def earlier_phases(blend_folder: Path, candidates: Sequence[Path]) -> list[Path]:
    """The candidates that are earlier phases of the same run.

    Arms that branch from one trunk read the same windows of base on purpose: they are no phases of
    one another.
    """
    earlier = read_json(blend_folder / "plan.json")["earlier"]
    found = []
    for other in candidates:
        readings = plan_readings(read_json(other / "plan.json"))
        if all(asdict(reading) in earlier for reading in readings):
            found.append(other)
    return found


def find_indexes(blend_folder: Path, candidates: Sequence[Path]) -> dict[str, Path]:
    """Source -> index folder of a blend: among `candidates`, then in the store around the blend.

    An index is known by the sha256 of its .idx, which the plan states.
    """
    plan = read_json(blend_folder / "plan.json")
    in_store = sorted(blend_folder.resolve().parent.parent.glob("index/*/index.json"))
    found: dict[str, Path] = {}
    for folder in [*candidates, *(file.parent for file in in_store)]:
        with open(idx_file(index_prefix(folder)), "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        for source in plan["sources"]:
            if source["index_sha256"] == digest:
                found.setdefault(source["name"], folder)
    return found


def run_peek(arguments: argparse.Namespace) -> int:
    """Prints the counts of an artifact and its first rows."""
    folder: Path = arguments.folder
    kind = folder_kind(folder)
    print(f"{kind} {folder}")
    for name in ("plan.json", "pack.json", "index.json", "composition.json", "counts.json"):
        if (folder / name).is_file():
            print(json.dumps(read_json(folder / name), indent=1, sort_keys=True))
    tokenizer = TextTokenizer.load(arguments.tokenizer) if arguments.tokenizer else None
    if kind in ("index", "pack"):
        reader = IndexedReader(index_prefix(folder) if kind == "index" else folder / "tokens")
        for number in range(min(arguments.rows, reader.num_documents)):
            ids = reader.document(number).tolist()
            print(f"{number}: {tokenizer.decode(ids) if tokenizer else ids}")
    elif kind in ("curate", "corpus"):
        files = [documents_file(folder)] if kind == "curate" else sorted(folder.glob("*.jsonl"))
        for file in files:
            print(file.name)
            with open(file, encoding="utf-8") as stream:
                for line in islice(stream, arguments.rows):
                    print(f"  {line.rstrip()[:400]}")
    return 0


def run_preprocess(arguments: argparse.Namespace) -> int:
    """Writes P.bin, P.idx and P.manifest.json."""
    manifest = preprocess(
        PreprocessRequest(
            inputs=tuple(arguments.input),
            output_prefix=arguments.output_prefix,
            tokenizer=arguments.tokenizer,
            json_key=arguments.json_key,
            append_eod=arguments.append_eod,
            workers=arguments.workers,
        )
    )
    dropped = sum(manifest["dropped"].values())
    print(
        f"{manifest['num_documents']} documents, {manifest['num_tokens']} tokens"
        f" ({manifest['dtype']}), {dropped} rows dropped {manifest['dropped'] or ''}".rstrip()
    )
    return 0


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
        )
    )
    for domain, written in manifest["rows"]["written"].items():
        print(
            f"{domain}: {written} of {manifest['rows']['read'][domain]} rows,"
            f" {manifest['left_out_by_the_blend'][domain]} left out by the blend,"
            f" dropped {manifest['dropped'][domain] or 'none'}"
        )
    print(f"{manifest['prompts_without_boxed']} prompts do not name \\boxed")
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
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_corpus(study.recipe.synthesis, arguments.out)
    print(f"wrote {arguments.out}", file=sys.stderr)
    return 0
