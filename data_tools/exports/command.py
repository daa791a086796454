"""`frontload data export` and `frontload data card`: parses, calls, prints; exit code."""

import argparse
from pathlib import Path

from frontload.data_tools.artifacts.kind import kind_of
from frontload.data_tools.artifacts.read import as_prefix, phase_folders
from frontload.data_tools.disk.files import read_json, replacing
from frontload.data_tools.disk.indexed import manifest_file
from frontload.data_tools.disk.publish import check_place
from frontload.data_tools.exports.card import card_origins, card_text, parse_licences
from frontload.data_tools.exports.megatron import (
    data_args,
    deviation_lines,
    deviations,
    write_data_args,
)
from frontload.recipes.errors import RecipeError
from frontload.recipes.index_flag import HELP, named_prefixes


def add_export_arguments(one: argparse.ArgumentParser) -> None:
    """Those of `export`."""
    one.add_argument("path", type=Path, metavar="PACK_OR_BLEND", help="a folder made by this room")
    one.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="NAME",
        help="of a pack NAME.idx.parquet for Megatron-Bridge; of a blend a folder with a folder a"
        " phase: data_args.txt and per_split_data_args.json for Megatron-LM",
    )
    one.add_argument(
        "--index",
        nargs="+",
        default=[],
        metavar="NAME=PREFIX",
        help="of a blend: " + HELP,
    )
    one.set_defaults(run=run_export)


def add_card_arguments(one: argparse.ArgumentParser) -> None:
    """Those of `card`."""
    one.add_argument("path", type=Path, metavar="PATH", help="sets, a pack, or a prefix P")
    one.add_argument("--out", type=Path, required=True, metavar="FILE.md", help="written by this")
    one.add_argument("--title", required=True, help="of the card")
    one.add_argument(
        "--licence",
        nargs="+",
        required=True,
        metavar="NAME=LICENCE",
        help="of the files whose names begin with NAME; of several the longest counts",
    )
    one.set_defaults(run=run_card)


def run_export(arguments: argparse.Namespace) -> int:
    """Writes the pack or the arguments, and prints what the reader will not do as ours does."""
    path, out = arguments.path, arguments.out
    kind = kind_of(path)
    _check_new(out)
    if kind == "pack":
        return _export_pack(path, out)
    if kind not in ("blend", "phases"):
        raise RecipeError(
            f"export {path}",
            found=f"an artifact of kind {kind}",
            rule="packs go to Megatron-Bridge and blends to Megatron-LM; a prefix is read by both",
            do="name a pack or a blend",
        )
    folders = phase_folders(path) if kind == "phases" else [path]
    plans = {folder.name: read_json(folder / "plan.json") for folder in folders}
    prefixes = _prefixes(arguments.index, plans)
    words = {name: data_args(plan, prefixes) for name, plan in plans.items()}
    for name, plan in plans.items():
        (out / name).mkdir(parents=True)
        write_data_args(words[name], out / name)
        print(f"{out / name}: data_args.txt, per_split_data_args.json")
        print("\n".join(deviation_lines(name, deviations(plan))))
    return 0


def _export_pack(path: Path, out: Path) -> int:
    from frontload.data_tools.exports.bridge import (  # pyarrow takes 0.4 s to load
        check_parquet_name,
        write_packed_parquet,
    )

    check_parquet_name(out)
    found = write_packed_parquet(path, out)
    print(
        f"{out}: {found.rows:,} rows, {found.sequences:,} sequences, {found.tokens:,} tokens, loss"
        f" on {found.loss_tokens:,}"
    )
    if found.first_targets:
        print(f"  {found.first_targets:,} targets begin a sequence: no token stands before them")
    print("  rows stand in the pack's order, once; epochs and shuffles are Megatron-Bridge's")
    print("  Megatron-Bridge takes the loss off what follows its end of text within a sequence")
    return 0


def _check_new(out: Path) -> None:
    check_place(out, asked="--out")
    if out.exists():
        raise RecipeError(
            f"--out {out}",
            found="something is there",
            rule="an export replaces nothing",
            do="name another place, or remove this",
        )


def _prefixes(given: list[str], plans: dict[str, dict]) -> dict[str, Path]:
    """Source -> prefix of its pair."""
    wanted = {source["name"]: name for name, plan in plans.items() for source in plan["sources"]}
    found = named_prefixes(given, wanted)
    if missing := sorted(wanted.keys() - found.keys()):
        raise RecipeError(
            "export --index",
            found=f"no index of {', '.join(missing)}",
            rule="Megatron-LM reads every source by the path of its pair",
            do=f"add --index {missing[0]}=PREFIX",
        )
    return found


def run_card(arguments: argparse.Namespace) -> int:
    """Writes the card."""
    path, kind = arguments.path, kind_of(arguments.path)
    _check_new(arguments.out)
    files = card_origins(path, kind, licences=parse_licences(arguments.licence))
    text = card_text(arguments.title, counts=_counts(path, kind), files=files)
    with replacing(arguments.out, "w") as stream:
        stream.write(text)
    print(f"{arguments.out}: {len(files)} files, {len({one.licence for one in files})} licences")
    return 0


def _counts(path: Path, kind: str) -> dict[str, int]:
    if kind == "pack":
        pack = read_json(path / "pack.json")
        return {"rows": pack["conversations_packed"], "tokens": pack["tokens"]}
    if kind == "sets":
        sets = read_json(path / "manifest.json")["sets"].values()
        return {name: sum(one[name] for one in sets) for name in ("rows", "tokens")}
    manifest = read_json(manifest_file(as_prefix(path) or path))
    return {"rows": manifest["num_documents"], "tokens": manifest["num_tokens"]}
