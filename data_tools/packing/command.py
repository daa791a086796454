"""`frontload data pack`: conversations to SFT rows with a loss mask; every drop is told."""

import argparse
import sys
import time
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.publish import is_finished
from frontload.data_tools.packing.build import build_pack
from frontload.data_tools.packing.plan import POLICIES, PackRequest
from frontload.data_tools.packing.steps import StepBudget, budget_of
from frontload.data_tools.preprocess.request import EncoderChoice
from frontload.data_tools.raw.bad_rate import MAX_BAD_RATE
from frontload.data_tools.stores.path import path_of
from frontload.data_tools.text.targets import History, TargetRules
from frontload.data_tools.text.template import parse_day
from frontload.recipes.errors import RecipeError
from frontload.recipes.runs.training import BUDGET_UNITS, LOSS, READ, ROWS

WORD_OF_UNIT = {READ: "read", LOSS: "with loss"}
MAX_LOST_RATE = 0.5  # ours: who loses most rows has the wrong length, or the wrong template


def add_arguments(pack: argparse.ArgumentParser) -> None:
    """Those of `pack`."""
    pack.add_argument("files", nargs="+", metavar="FILE", help="JSONL (.gz, .zst) or Parquet")
    pack.add_argument(
        "--tokenizer", type=Path, required=True, metavar="FILE_OR_DIR", help="of the model"
    )
    pack.add_argument(
        "--sequence-tokens", type=int, required=True, metavar="S", help="tokens of a row"
    )
    pack.add_argument(
        "--over-long", required=True, metavar="|".join(POLICIES), help="longer than S + 1 tokens"
    )
    pack.add_argument(
        "--output",
        type=path_of,
        required=True,
        metavar="FOLDER",
        help="made by this, on a disk or at s3://, gs://",
    )
    pack.add_argument("--template", type=Path, metavar="FILE", help="the tokenizer's if not given")
    pack.add_argument(
        "--source-field", default="source", help="field that names a row's source (source)"
    )
    pack.add_argument("--epochs", type=int, default=1, help="each in an order of its own (1)")
    _add_budget(pack)
    pack.add_argument("--seed", type=int, default=1, help="of rows and their order (default 1)")
    pack.add_argument(
        "--max-bad-rate",
        type=float,
        default=MAX_BAD_RATE,
        metavar="SHARE",
        help="publish nothing when more rows than that are dropped, but for their length"
        " (default %(default)s)",
    )
    pack.add_argument(
        "--max-lost-rate",
        type=float,
        default=MAX_LOST_RATE,
        metavar="SHARE",
        help="and when more are lost, for their length too (default %(default)s)",
    )
    _add_targets(pack)
    pack.add_argument("--workers", type=int, default=1, help="processes; the bytes do not depend")
    pack.set_defaults(run=run_pack)


def _add_budget(pack: argparse.ArgumentParser) -> None:
    pack.add_argument(
        "--budget-tokens", type=int, default=0, metavar="T", help="read so many instead of epochs"
    )
    pack.add_argument(
        "--budget-unit",
        choices=BUDGET_UNITS,
        default=ROWS,
        help="of T: rows with their padding (default), tokens read, or tokens with loss",
    )
    pack.add_argument(
        "--step-tokens", type=int, default=0, metavar="N", help="read, or with loss, in a step"
    )
    pack.add_argument(
        "--batch-sequences", type=int, default=0, metavar="B", help="rows of a step, at most"
    )


def _step_budget(arguments: argparse.Namespace) -> StepBudget | None:
    """The budget in real tokens, if one was asked for.

    Raises: RecipeError for a number that is missing, or that no unit reads.
    """
    numbers = {
        "--budget-tokens": arguments.budget_tokens,
        "--step-tokens": arguments.step_tokens,
        "--batch-sequences": arguments.batch_sequences,
    }
    if arguments.budget_unit == ROWS:
        numbers.pop("--budget-tokens")
    is_needed = arguments.budget_unit != ROWS
    for option, number in numbers.items():
        if (number >= 1) != is_needed or number < 0:
            raise RecipeError(
                f"{option} {number}",
                found=f"with --budget-unit {arguments.budget_unit}",
                rule="a budget in tokens read or with loss is spread over steps; rows are not",
                do=f"give {option} a number above 0" if is_needed else "give --budget-unit read",
            )
    if not is_needed:
        return None
    steps = -(-arguments.budget_tokens // arguments.step_tokens)
    return StepBudget(unit=arguments.budget_unit, steps=steps, batch_rows=arguments.batch_sequences)


def _add_targets(pack: argparse.ArgumentParser) -> None:
    pack.add_argument(
        "--history",
        choices=[policy.value for policy in History],
        default=History.EACH_TURN.value,
        help="where a template writes earlier turns in another way, as without their reasoning: a"
        " row for each turn (default), one row with loss on what stands as it is generated, or one"
        " row that keeps their reasoning",
    )
    pack.add_argument("--last-turn-only", action="store_true", help="loss on the last turn alone")
    pack.add_argument("--mask-thinking", action="store_true", help="no loss on the reasoning")
    pack.add_argument("--date", metavar="DAY", help="that a template writes, such as 2026-01-31")


def run_pack(arguments: argparse.Namespace) -> int:
    """Writes the pack and prints what became of every conversation."""
    shown = _Progress()
    was_there = is_finished(arguments.output, described_by="pack.json")
    pack = build_pack(
        PackRequest(
            inputs=tuple(arguments.files),
            tokenizer=arguments.tokenizer,
            template=arguments.template,
            output=arguments.output,
            sequence_tokens=arguments.sequence_tokens,
            over_long=arguments.over_long,
            source_field=arguments.source_field,
            epochs=arguments.epochs,
            seed=arguments.seed,
            budget_tokens=arguments.budget_tokens,
            step_budget=_step_budget(arguments),
            workers=arguments.workers,
            max_bad_rate=arguments.max_bad_rate,
            max_lost_rate=arguments.max_lost_rate,
            targets=TargetRules(
                history=History(arguments.history),
                last_turn_only=arguments.last_turn_only,
                masks_thinking=arguments.mask_thinking,
            ),
            day=parse_day(arguments.date) if arguments.date else None,
        ),
        progress=shown,
    )
    shown.end()
    if was_there:
        print(f"{arguments.output} holds this very pack: nothing done", file=sys.stderr)
    for line in report_lines(pack):
        print(line)
    return 0


def report_lines(pack: Mapping[str, Any]) -> list[str]:
    """What a pack.json says, for people."""
    lines = [
        f"{pack['conversations_packed']} of {pack['conversations']} conversations in"
        f" {pack['rows']} rows of {pack['sequence_tokens']} + 1 tokens,"
        f" {pack['efficiency']:.2%} full, loss on {pack['loss_tokens']} of {pack['tokens']} tokens"
    ]
    if budget := budget_of(pack):
        lines.append(
            f"  {pack['budget_tokens']} tokens {WORD_OF_UNIT[budget.unit]} in {budget.steps} steps:"
            f" {pack['rows_read']} rows, {float(Fraction(pack['epochs'])):.2f} epochs"
        )
    for source, counts in pack["sources"].items():
        parts = [f"{counts['packed']} of {counts['rows']} packed"]
        if counts["split"]:
            parts.append(
                f"{counts['split']} cut into {counts['parts']},"
                f" {counts['cut_turns']} turns too long for any row"
            )
        if by_turn := counts.get("by_turn"):
            parts.append(f"{by_turn} in {counts['turn_rows']} rows that each end with a turn")
        if context := counts.get("context_turns"):
            parts.append(f"{context} turns without loss: the template writes them otherwise later")
        if joined := counts.get("joined"):
            parts.append(f"{joined} targets begin inside a token of their prompt")
        if unopened := counts.get("unopened"):
            parts.append(
                f"{unopened} targets begin before the thought that the prompt of inference opens"
            )
        examples = counts.get("examples", {})
        for reason, number in counts["dropped"].items():
            first = f" (first {examples[reason]})" if reason in examples else ""
            parts.append(f"{number} dropped: {reason}{first}")
        lines.append(f"  {source}: {'; '.join(parts)}")
    made_by = pack.get("made_by", {})  # packs of older versions do not say
    if made_by.get("encoder") == EncoderChoice.TOKENIZERS:
        lines.append(f"  encoded by tokenizers, since {made_by['encoder_reason']}")
    return lines


class _Progress:
    """A line that is written over on a terminal, at most twice a second."""

    def __init__(self) -> None:
        self._started = self._told = time.monotonic()
        self._is_open = False

    def __call__(self, rows: int, kept: int) -> None:
        now = time.monotonic()
        if not sys.stderr.isatty() or now - self._told < 0.5:
            return
        self._told, self._is_open = now, True
        rate = rows / max(now - self._started, 1e-9)
        print(f"\r{rows} rows, {kept} sequences, {rate:.0f} rows/s ", end="", file=sys.stderr)

    def end(self) -> None:
        """Leaves the line."""
        if self._is_open:
            print(file=sys.stderr)
