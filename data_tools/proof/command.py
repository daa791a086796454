"""`frontload data verify`: every statement about each artifact, the place of a fault, the rate."""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

from frontload.data_tools.artifacts.kind import MADE_OF, earlier_phases, find_indexes, kind_of
from frontload.data_tools.artifacts.read import as_prefix, phase_folders, prefix_of
from frontload.data_tools.disk.files import read_json
from frontload.data_tools.disk.indexed import manifest_file
from frontload.data_tools.proof.blend import verify_blend
from frontload.data_tools.proof.bytes_of import FileDigest, prove_bytes
from frontload.data_tools.proof.checks import Check, wrong
from frontload.data_tools.proof.pack import verify_pack
from frontload.data_tools.proof.phases import prove_ledger
from frontload.data_tools.proof.prefix import prove_index_folder, prove_prefix
from frontload.data_tools.proof.sets import prove_sets
from frontload.data_tools.proof.shown import drawn, show_documents
from frontload.data_tools.proof.source import prove_pack_source
from frontload.data_tools.shown.explain import explain_sample, sources_in_store
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.recipes.errors import ArtifactError, RecipeError

SHOWN_CHARACTERS = 400  # ours: of a line of a sample
DESCRIBED = "its JSON has the fields and types of its format"
MISREAD = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What a damaged description does to code that counts on its fields."""
PAIRS = {"index": ("documents",), "pack": ("tokens", "loss_mask"), "prefix": ("",)}
"""Pairs whose digests the proof of a kind compares itself."""


def add_arguments(verify: argparse.ArgumentParser) -> None:
    """Those of `verify`."""
    verify.add_argument("folders", nargs="+", type=Path, metavar="PATH", help="folder or prefix P")
    verify.add_argument(
        "--tokenizer", type=Path, metavar="T", help="file or folder: ids, digest, shown text"
    )
    verify.add_argument(
        "--input",
        nargs="+",
        default=[],
        metavar="FILE",
        help="of a pack the files it was made of: with --tokenizer every row is encoded again",
    )
    verify.add_argument(
        "--template", type=Path, metavar="FILE", help="of a pack that was made with one"
    )
    verify.add_argument(
        "--samples", type=int, default=0, metavar="N", help="show N random samples (default 0)"
    )
    verify.add_argument("--seed", type=int, default=1, help="which samples (default 1)")
    verify.set_defaults(run=run_verify)


def run_verify(arguments: argparse.Namespace) -> int:
    """Checks every path; 1 when a statement about one of them does not hold."""
    paths: list[Path] = arguments.folders
    if arguments.samples < 0:
        raise RecipeError(
            "--samples",
            found=str(arguments.samples),
            rule="it is the number of samples to show",
            do="write 0 or more",
        )
    kinds = _with_phases({path: kind_of(path) for path in paths})
    tokenizer = TextTokenizer.load(arguments.tokenizer) if arguments.tokenizer else None
    for path, kind in kinds.items():
        _refuse_unprovable(path, kind)
    if arguments.input and (tokenizer is None or "pack" not in kinds.values()):
        raise RecipeError(
            "--input",
            found="no --tokenizer" if tokenizer is None else "no pack",
            rule="the rows that a pack was made of are encoded again",
            do="name the pack, its tokenizer and, where one was named, its --template",
        )
    if arguments.template and not arguments.input:
        raise RecipeError(
            f"--template {arguments.template}",
            found="no --input",
            rule="a template renders the rows that a pack was made of, and they are not named",
            do="name them with --input, or leave --template out",
        )
    refused = 0
    for path, kind in kinds.items():
        print(f"{kind} {path}")
        started = time.perf_counter()
        checks = _prove(path, kind, among=kinds, tokenizer=tokenizer)
        if arguments.input and kind == "pack" and tokenizer and not wrong(checks):
            template = arguments.template
            checks += prove_pack_source(
                path, arguments.input, tokenizer=tokenizer, template=template
            )
        seconds = time.perf_counter() - started
        for one in checks:
            print(f"  {one.to_text()}")
        refused += len(wrong(checks))
        print(f"  {_rate(path, kind, seconds)}")
        if arguments.samples and not wrong(checks):
            for line in _samples(path, kind, tokenizer, arguments):
                print(f"  {line}")
    print(f"{refused} statements do not hold" if refused else "all statements hold")
    return 1 if refused else 0


def _with_phases(kinds: Mapping[Path, str]) -> dict[Path, str]:
    """The paths, each planned blend followed by its phases."""
    found: dict[Path, str] = {}
    for path, kind in kinds.items():
        found[path] = kind
        if kind == "phases":
            found |= {phase: kind_of(phase) for phase in phase_folders(path)}
    return found


def _refuse_unprovable(path: Path, kind: str) -> None:
    if kind in ("index", "pack", "blend", "phases", "prefix", "sets"):
        return
    raise RecipeError(
        f"verify {path}",
        found=f"an artifact of kind {kind}",
        rule="what can be proven is sets, an index, a blend, a pack or a prefix",
        do="use `frontload data peek` to look at it",
    )


def _prove(
    path: Path, kind: str, *, among: Mapping[Path, str], tokenizer: TextTokenizer | None
) -> list[Check]:
    """All checks of one path; a file too broken to be read is one that does not hold."""
    checks: list[Check] = []
    try:
        checks = [] if kind == "sets" else _stored_digests(path, but=PAIRS.get(kind, ()))
        return [*checks, *_prove_content(path, kind, among=among, tokenizer=tokenizer)]
    except MISREAD as error:
        return [*checks, _misread(path, kind, error)]
    except ArtifactError as error:
        if not wrong(checks):
            raise
        broken = Check(claim=error.asked, found=error.found, holds=False, where=error.rule)
        return [*checks, broken]


def _misread(path: Path, kind: str, error: Exception) -> Check:
    """What is said of a description that is not as its format asks."""
    prefix = as_prefix(path)
    described = path / MADE_OF[kind] if kind in MADE_OF else manifest_file(prefix or path)
    files = [file for file in (described, path / "manifest.json") if file.is_file()]
    for file in files:
        if not isinstance(found := read_json(file), dict):
            shown = f"JSON, but a {type(found).__name__}; it is an object with named fields"
            return Check(claim=DESCRIBED, found=shown, holds=False, where=str(file))
    shown = "a field of another type: " + " ".join(f"{type(error).__name__}: {error}".split())[:120]
    if isinstance(error, KeyError):
        shown = f"no field {error}"
    where = " or ".join(map(str, files))
    return Check(claim=DESCRIBED, found=shown, holds=False, where=where)


def _prove_content(
    path: Path, kind: str, *, among: Mapping[Path, str], tokenizer: TextTokenizer | None
) -> list[Check]:
    if kind == "prefix":
        prefix = as_prefix(path)
        assert prefix is not None, f"{path} was a prefix a moment ago"
        return prove_prefix(prefix, tokenizer=tokenizer)
    if kind == "sets":
        return prove_sets(path)
    if kind == "phases":
        return prove_ledger(path)
    if kind == "index":
        return prove_index_folder(path)
    if kind == "pack":
        return verify_pack(path, vocab_size=tokenizer.vocab_size if tokenizer else None)
    indexes = [as_prefix(other) or other for other in among if among[other] in ("index", "prefix")]
    blends = [other for other in among if among[other] == "blend"]
    earlier = earlier_phases(path, blends)
    found = find_indexes(path, indexes)
    strange = _without_index(path, found) if set(indexes) - set(found.values()) else []
    return strange or verify_blend(path, found, others=earlier)


def _without_index(blend: Path, found: Mapping[str, Path]) -> list[Check]:
    """Sources of a plan that no index is of, when an index was given that is of no source."""
    file = blend / "plan.json"
    return [
        Check(
            claim=f"{source['name']}: an index has the sha256 that the plan states",
            found=f"none has {source['index_sha256'][:12]}: another index, or an edited plan",
            holds=False,
            where=f"{file} sources.{source['name']}.index_sha256",
        )
        for source in read_json(file)["sources"]
        if source["name"] not in found
    ]


def _stored_digests(folder: Path, *, but: tuple[str, ...]) -> list[Check]:
    """The files of a published folder against the store's manifest.json, where there is one."""
    file = folder / "manifest.json"
    if not file.is_file():
        return []
    checks: list[Check] = []
    for name, entry in read_json(file)["files"].items():
        if any(name in (f"{pair}.bin", f"{pair}.idx") for pair in but):
            continue
        if not (folder / name).is_file():
            checks.append(Check(claim=name, found="missing", holds=False, where=str(folder / name)))
            continue
        stated = FileDigest(sha256=entry["sha256"], size_bytes=entry["size_bytes"])
        checks += prove_bytes(folder / name, stated)
    return checks


def _rate(path: Path, kind: str, seconds: float) -> str:
    prefix = as_prefix(path) if kind == "prefix" else None
    files = (
        [f for f in path.iterdir() if f.is_file()]
        if prefix is None
        else [prefix.with_name(prefix.name + suffix) for suffix in (".bin", ".idx")]
    )
    size = sum(file.stat().st_size for file in files) / 1e6
    return f"{size:.1f} MB in {seconds:.2f} s, {size / max(seconds, 1e-9):.0f} MB/s"


def _samples(
    path: Path, kind: str, tokenizer: TextTokenizer | None, arguments: argparse.Namespace
) -> list[str]:
    """Drawn samples as text; of a blend by its own documents, which needs a tokenizer."""
    count, seed = arguments.samples, arguments.seed
    if kind in ("phases", "sets"):
        return []
    if kind != "blend":
        prefix = path / "tokens" if kind == "pack" else prefix_of(as_prefix(path) or path)
        return show_documents(prefix, tokenizer, count=count, seed=seed)
    if tokenizer is None:
        return ["samples of a blend are shown with --tokenizer"]
    folders = sources_in_store(
        find_indexes(path, [as_prefix(other) or other for other in arguments.folders]),
        tokenizer=tokenizer.file,
    )
    total = read_json(path / "plan.json")["num_samples"]
    return [
        line[:SHOWN_CHARACTERS]
        for number in drawn(count, total, seed=seed)
        for line in explain_sample(path, folders, number=number).to_text().splitlines()
    ]
