"""Verification reports: checks with their verdicts, and the report as Markdown. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["passed", "failed", "inherited", "pending", "empty"]


EXAMPLES = 5


@dataclass
class Check:
    """One check of one level: how many documents it looked at, how many faults it found, the first of them.

    What looked at nothing has not passed: `empty` where there is nothing of the kind, `failed` where there is.

    Attributes:
        name: what was checked.
        level: of which index; "both" for chunks and their papers.
        verdict: failed vetoes a swap; inherited was wrong in the source already.
        checked: documents that were looked at.
        faults: how many of them are wrong.
        found: the result in words.
        examples: the first faults.
    """

    name: str
    level: str
    verdict: Verdict
    checked: int
    faults: int = 0
    found: str = ""
    examples: list[str] = field(default_factory=list)


@dataclass
class Verification:
    """All checks of one verification.

    Attributes:
        collection: its name.
        kind: "migration" where both sides of one were compared, "live" for the collection alone.
        indexes: level → the index that was verified.
        full: whether every document was looked at.
        checks: one after the other.
        seconds: how long it took.
    """

    collection: str
    kind: str
    indexes: dict[str, str]
    full: bool
    checks: list[Check] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether no check failed, so that a swap is allowed."""
        return all(check.verdict != "failed" for check in self.checks)


class FaultCount:
    """Counts the faults of one check and keeps the first few."""

    def __init__(self, name: str, level: str) -> None:
        self.name, self.level, self.checked, self.faults = name, level, 0, 0
        self.examples: list[str] = []

    def see(self, doc_id: str, fault: str) -> None:
        """Count a document and its fault; "" for none."""
        self.checked += 1
        if fault:
            self.faults += 1
            if len(self.examples) < EXAMPLES:
                self.examples.append(f"{doc_id}: {fault}")

    def check(self, what: str, looked_at: int, there: int) -> Check:
        """Return the check with its verdict.

        Args:
            what: the fault in words.
            looked_at: documents that were read for all checks.
            there: documents in the index.
        """
        if there and not looked_at:
            return Check(self.name, self.level, "failed", 0, 1, f"none of {there:,} documents was checked")
        if not self.checked:
            moving = self.name in ("versions", "fields") and looked_at > 0
            words = "all checked documents have changed since" if moving else "there is nothing to check"
            return Check(self.name, self.level, "pending" if moving else "empty", 0, 0, words)
        found = f"{self.faults:,} of {self.checked:,} documents: {what}" if self.faults else f"{self.checked:,} documents"
        return Check(self.name, self.level, "failed" if self.faults else "passed", self.checked, self.faults, found, self.examples)


def page_of(report: Mapping[str, Any]) -> str:
    """Return a report from the journal as Markdown."""
    verdict = "passed" if report["passed"] else "FAILED"
    lines = [
        f"# Verification of '{report['collection']}': {verdict}",
        "",
        f"{'Every document' if report['full'] else 'A sample of documents'} of {', '.join(report['indexes'].values())}, "
        f"in {report['seconds']:.1f} s. Ids and origins are always compared completely.",
        "",
        "| check | level | verdict | found |",
        "|---|---|---|---|",
    ]
    lines += [f"| {check['name']} | {check['level']} | {check['verdict']} | {check['found']} |" for check in report["checks"]]
    for check in report["checks"]:
        if check["examples"]:
            lines += ["", f"**{check['name']}, {check['level']}**", *(f"- {example}" for example in check["examples"])]
    return "\n".join(lines) + "\n"


def kept_verification(report: Verification) -> dict[str, Any]:
    """Return a report in the form for the journal: its fields and the readable page."""
    kept = {**asdict(report), "passed": report.passed}
    return {**kept, "page": page_of(kept)}
