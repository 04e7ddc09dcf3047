"""What a check has found."""

import dataclasses
from collections.abc import Mapping
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["error", "warning"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    subject: what it concerns, for example "kind", "time", "null" or "reward"; level: "error" for
    what cannot work, "warning" for what is only suspicious; message: what was measured, what was
    expected, and what to do.
    """

    subject: str
    level: Level
    message: str

    def __str__(self) -> str:
        return f"{self.level}: {self.subject}: {self.message}"


Findings: TypeAlias = list[Finding]


@dataclasses.dataclass(frozen=True)
class Report:
    """All findings of a check, and what was measured."""

    findings: tuple[Finding, ...]
    measured: Mapping[str, float]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that cannot work."""
        return tuple(finding for finding in self.findings if finding.level == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that are only suspicious."""
        return tuple(finding for finding in self.findings if finding.level == "warning")

    def __str__(self) -> str:
        numbers = ", ".join(f"{name} {value:.3g}" for name, value in self.measured.items())
        said = [str(finding) for finding in self.findings] or ["nothing wrong was found"]
        return "\n".join([*said, *([f"measured: {numbers}"] if numbers else [])])
