"""Proves the ledger of a planned blend against the plans of its phases, which are proven apart."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import read_json
from frontload.data_tools.proof.checks import Check, equal


def prove_ledger(folder: Path) -> list[Check]:
    """Counts every number of ledger.json that a plan holds: by phase and source, and in sum.

    Raises: ArtifactError when a phase has no plan.
    """
    file = folder / "ledger.json"
    ledger = read_json(file)
    checks: list[Check] = []
    plans = []
    first = 0
    for phase in ledger["phases"]:
        plan = read_json(folder / phase["name"] / "plan.json")
        plans.append(plan)
        found = {
            "tokens": plan["tokens"],
            "num_samples": plan["num_samples"],
            "first_sample": first,
        }
        first += plan["num_samples"]
        checks += _compared(phase["name"], found, phase, where=f"{file} phases.{phase['name']}")
        stated = {source["name"]: source for source in phase["sources"]}
        for source in plan["sources"]:
            name = f"{phase['name']}.{source['name']}"
            checks += _compared(
                name, _source(source, plan), stated.get(source["name"], {}), where=f"{file} {name}"
            )
    checks += _sums(ledger, plans, where=str(file))
    return checks


def _source(source: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    """What a plan says of one of its sources, as the ledger writes it."""
    start, tokens, one_epoch = (source[k] for k in ("start_tokens", "tokens", "document_tokens"))
    end = start + tokens
    return {
        "tokens": tokens,
        "num_samples": tokens // plan["sequence_tokens"],
        "share": str(Fraction(tokens, plan["tokens"])),
        "start_tokens": start,
        "end_tokens": end,
        "epochs": str(Fraction(tokens, one_epoch)),
        "repeated_tokens": max(0, end - max(start, one_epoch)),
    }


def _sums(
    ledger: Mapping[str, Any], plans: Sequence[Mapping[str, Any]], *, where: str
) -> list[Check]:
    found: dict[str, Any] = {
        "tokens": sum(plan["tokens"] for plan in plans),
        "num_samples": sum(plan["num_samples"] for plan in plans),
    }
    checks = _compared("blend", found, ledger, where=where)
    for key in ("seed", "sequence_tokens"):
        checks += [
            equal(f"{plan['phase']}: {key}", plan[key], ledger[key], where=f"{where} {key}")
            for plan in plans
        ]
    ends: dict[str, tuple[int, int]] = {}
    for plan in plans:
        for source in plan["sources"]:
            end = source["start_tokens"] + source["tokens"]
            before = ends.get(source["name"], (0, 0))[0]
            ends[source["name"]] = (max(before, end), source["document_tokens"])
    for name, (end, one_epoch) in ends.items():
        found = {
            "read_tokens": end,
            "epochs": str(Fraction(end, one_epoch)),
            "repeated_tokens": max(0, end - one_epoch),
            "unread_tokens": max(0, one_epoch - end),
        }
        checks += _compared(name, found, ledger["sources"][name], where=f"{where} sources.{name}")
    return checks


def _compared(
    name: str, found: Mapping[str, Any], stated: Mapping[str, Any], *, where: str
) -> list[Check]:
    """One check of all keys when they agree, else one of each key that does not."""
    wrong = [key for key in found if found[key] != stated.get(key)]
    if not wrong:
        return [Check(claim=f"{name}: ledger", found=f"{len(found)} numbers", holds=True)]
    return [
        equal(f"{name}: {key}", found[key], stated.get(key), where=f"{where}.{key}")
        for key in wrong
    ]
