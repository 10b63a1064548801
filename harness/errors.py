"""The exceptions of the harness: ConfigError is a mistake of the user, UnfitEnvironmentError a fault of the machine."""

from __future__ import annotations

from collections.abc import Iterable

USAGE_EXIT_CODE = 2
ENVIRONMENT_EXIT_CODE = 3


class ConfigError(ValueError):
    """One or more mistakes in what the user wrote, one line each, saying where and what to change."""

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = tuple(problems.splitlines()) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class UnfitEnvironmentError(RuntimeError):
    """This machine lacks something that no configuration can bring."""


def is_user_mistake(error: BaseException) -> bool:
    """Every package of ours has its own ValueError for mistakes of the user; a bare ValueError is a bug."""
    ours = {"harness", "engines", "workloads", "results", "reports"}
    return isinstance(error, ValueError) and type(error).__module__.partition(".")[0] in ours
