"""Study `smoke` from end to end through the command line, as a user runs it; `make test` runs it.

Losses are compared with smoke_losses.csv; `make golden` writes it again, the commit says why.
"""

import csv
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frontload.eval.statistics.score import rescore
from frontload.launch.origins.machine_kind import machine_kind
from frontload.recipes.study.expand import load_study
from frontload.recipes.study.points import mix_title, mixed_tokens

GOLDEN = Path(__file__).with_name("smoke_losses.csv")
LOSS_TOLERANCE = 1e-4  # fp32 sums in another order, over a hundred steps
SECOND_RUN_SECONDS = 10.0
DOCUMENTS = "documents.jsonl"
TABLES = {"T1", "T2", "T4", "T5", "T6", "T7"}

pytestmark = pytest.mark.smoke


def frontload(folder: Path, *arguments: str) -> str:
    """What the command prints; its exit code must be 0."""
    done = subprocess.run(
        [sys.executable, "-m", "frontload.launch.cli", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def test_the_smoke_study_from_end_to_end(tmp_path: Path) -> None:
    stages = load_study("smoke").stages
    printed = frontload(tmp_path, "run", "smoke")
    assert f"made {len(stages)} stages" in printed
    assert "% of" in printed.splitlines()[-1], "the last line says how busy the cores were"
    check_report(tmp_path / "results" / "smoke", printed)
    check_ledger(tmp_path / "store", tmp_path / "results" / "smoke")
    check_second_run(tmp_path, len(stages))
    check_machine(tmp_path)
    check_data(tmp_path)
    check_no_evaluation_question_trains(tmp_path / "store")
    check_scores(tmp_path / "store")
    check_losses(tmp_path / "store")


def check_machine(folder: Path) -> None:
    """Every stage names the kind of machine that made it, those with torch what torch chose."""
    import torch  # so that this process, too, knows what it chose

    assert torch.backends.cpu.get_cpu_capability() in str(machine_kind())
    told = frontload(folder, "status", "smoke").splitlines()[-1]
    assert told == f"made on {machine_kind()}"


def check_report(out: Path, printed: str) -> None:
    """Tables, verdicts, figures and a page that fetches nothing."""
    tables = json.loads((out / "tables.json").read_text())["tables"]
    assert {table["id"] for table in tables} >= TABLES
    assert all(table["rows"] for table in tables if table["id"] in TABLES)
    text = (out / "tables.md").read_text()
    assert text.strip() in printed
    (third,) = [part for part in re.split(r"^## ", text, flags=re.M) if part.startswith("T3")]
    assert "no cell of it in this study" in third
    verdicts = json.loads((out / "verdicts.json").read_text())
    said = {one["id"][:3]: one["verdict"] for one in verdicts["hypotheses"]}
    assert len(said) == 18
    assert said["H13"] == said["H14"] == "not testable here"
    assert "one seed only" in said.values()
    assert not {"supported", "undecided", "contradicted"} & set(said.values()), (
        "one seed decides nothing"
    )
    for name in ("figure2", "loss_pretraining", "loss_sft", "heldout_loss", "gap_by_stage"):
        for suffix in ("png", "svg"):
            assert (out / "figures" / f"{name}.{suffix}").stat().st_size > 1_000
    page = (out / "report.html").read_text()
    assert "<code>frontload allocate QUESTION --plan</code>" in page, "a study has no optimum"
    assert not re.search(r"(src|href)\s*=\s*[\"']?\s*(https?:)?//", page)
    assert not re.search(r"url\(\s*[\"']?\s*(https?:)?//|@import|<link|<iframe", page)
    for wanted in ("T1", "T7", "H18", "epochs", "learning_rate", "pretrain/trunk-seed1"):
        assert wanted in page, wanted


def check_ledger(store: Path, out: Path) -> None:
    """What each cell has read, counted here from the masks, lengths and order that trained it."""
    study = load_study("smoke")
    entries = {row["cell"]: row for row in json.loads((out / "tables.json").read_text())["ledger"]}
    assert set(entries) == set(study.tabulate.recipe.cells)
    for stage in study.stages:
        if stage.kind != "pack":
            continue
        folder = store / stage.folder
        raw = (folder / "tokens.idx").read_bytes()
        num_sequences, num_documents = (int(n) for n in np.frombuffer(raw[18:34], "<i8"))
        lengths = np.frombuffer(raw, "<i4", num_sequences, 34)
        ends = np.frombuffer(raw, "<i8", num_documents, 34 + 12 * num_sequences)
        rows = [lengths[a:b].sum() for a, b in itertools.pairwise(ends)]
        mask = np.fromfile(folder / "loss_mask.bin", np.uint8)
        masks = np.split(mask, np.cumsum(rows)[:-1])
        losses = [part.sum() for part in masks]
        order = np.load(folder / "order.npy").tolist()
        kept = json.loads((folder / "pack.json").read_text())["last_row_tokens"]
        unread, unread_loss = rows[order[-1]] - kept, masks[order[-1]][kept:].sum()
        losses_read = sum(losses[n] for n in order) - unread_loss
        mix, times = stage.label.removesuffix("-seed1").split("-x")
        name = mix_title(mix) + (f"*{times}" if times != "1" else "")
        found = [row for cell, row in entries.items() if cell.endswith(f">sft:{name}")]
        assert found, stage.label
        for row in found:
            sft = row["sft"]
            assert sft["tokens"] == study.recipe.sft.tokens * int(times)
            assert sft["tokens"] == sum(rows[n] for n in order) - unread
            assert sft["loss_tokens"] == losses_read
            is_read_once = order.count(order[-1]) == 1
            distinct = sum(rows[n] for n in set(order)) - unread * is_read_once
            assert sft["distinct_tokens"] == distinct
            assert sft["epochs"] == sft["tokens"] / sum(rows)
            positions = len(order) * (study.recipe.sft.sequence_tokens + 1)
            assert sft["padding_share"] == 1 - sft["tokens"] / positions
        for tuned in (one for one in study.stages if one.inputs.get("pack") is stage):
            lines = rows_of(store / tuned.folder / "metrics.jsonl")
            assert sum(line.get("data/loss_tokens", 0) for line in lines) == losses_read
    knobs = study.recipe.pretraining
    assert {row["pretraining_tokens"] for row in entries.values()} == {knobs.tokens}
    read = {cell: sum(one["tokens"] for one in row["reasoning"]) for cell, row in entries.items()}
    assert read.pop("pt:LMQ@60-40", mixed_tokens(knobs, 0.6)) == mixed_tokens(knobs, 0.6)
    for cell, tokens in read.items():
        assert tokens == (
            0 if cell.startswith("pt:base") else mixed_tokens(knobs, knobs.base_share)
        ), cell


def check_second_run(folder: Path, num_stages: int) -> None:
    """A second run makes nothing, quickly; every byte is as published."""
    before = {path: path.stat().st_mtime_ns for path in artifacts(folder / "store")}
    begin = time.monotonic()
    printed = frontload(folder, "run", "smoke")
    assert time.monotonic() - begin < SECOND_RUN_SECONDS
    assert f"nothing to do, all {num_stages} stages are built" in printed
    assert {path: path.stat().st_mtime_ns for path in artifacts(folder / "store")} == before
    printed = frontload(folder, "status", "smoke", "--verify")
    assert printed.count("  built ") == num_stages
    assert "every file of every built stage has the checksum" in printed


def artifacts(store: Path) -> Iterator[Path]:
    for manifest in store.glob("*/*/manifest.json"):
        yield from (path for path in manifest.parent.rglob("*") if path.is_file())


def check_data(folder: Path) -> None:
    """`data verify` proves every index, blend and pack from the files."""
    kinds = ("index", "blend", "pack")
    found = sorted(str(path) for kind in kinds for path in (folder / "store" / kind).iterdir())
    assert len(found) == 17
    printed = frontload(folder, "data", "verify", *found)
    assert "all statements hold" in printed
    sample = frontload(folder, "explain", "sample", "0", "--blend", "lmq-seed1")
    assert sample.startswith("blend/lmq-seed1-")
    assert "\nsample 0 of phase" in sample


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def question_of(row: dict[str, str]) -> str:
    return " ".join((row.get("question") or row.get("context") or "").split())


def check_no_evaluation_question_trains(store: Path) -> None:
    """By question: no item, exemplar apart, is asked by a row that any model trains on."""
    (corpus,) = (store / "synthesize").iterdir()
    asked = {question_of(row) for row in rows_of(corpus / "items.jsonl")}
    asked |= {question_of(row) for row in rows_of(corpus / "heldout.jsonl")}
    asked.discard("")
    assert len(asked) > 50
    trained = [row for path in (store / "curate").iterdir() for row in rows_of(path / DOCUMENTS)]
    assert not asked & {question_of(row) for row in trained}
    base = " | ".join(" ".join(row.get("text", "").split()) for row in trained)
    assert not [question for question in asked if f" {question} " in base]


def check_scores(store: Path) -> None:
    """Gold answers are graded right, and the stored items give the stored scores."""
    for folder in sorted((store / "evaluate").iterdir()):
        stored = json.loads((folder / "scores.json").read_text())
        assert stored["gold_replay"]["accuracy"] == 1.0
        assert stored["gold_replay"]["num_items"] > 0
        assert json.loads(json.dumps(rescore(folder / "items.jsonl").to_json())) == stored


def losses(store: Path) -> list[tuple[str, int, float]]:
    """First and last loss of every training stage."""
    found = []
    for kind in ("pretrain", "sft"):
        for folder in sorted((store / kind).iterdir()):
            lines = rows_of(folder / "metrics.jsonl")
            label = f"{kind}/{folder.name.rpartition('-')[0]}"
            found += [
                (label, int(x["step"]), float(x["train/loss"])) for x in (lines[0], lines[-1])
            ]
    return found


def check_losses(store: Path) -> None:
    """Every training stage begins and ends at the loss of the golden file."""
    found = losses(store)
    if os.environ.get("FRONTLOAD_GOLDEN") == "write":
        with open(GOLDEN, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("stage", "step", "loss"))
            writer.writerows((label, step, f"{loss:.6f}") for label, step, loss in found)
    with open(GOLDEN, encoding="utf-8") as file:
        golden = {
            (row["stage"], int(row["step"])): float(row["loss"]) for row in csv.DictReader(file)
        }
    assert {(label, step) for label, step, _ in found} == set(golden)
    moved = {
        f"{label} step {step}: {loss:.6f}, was {golden[label, step]:.6f}"
        for label, step, loss in found
        if abs(loss - golden[label, step]) > LOSS_TOLERANCE
    }
    assert not moved, "run `make golden` and say in the commit why:\n" + "\n".join(sorted(moved))
