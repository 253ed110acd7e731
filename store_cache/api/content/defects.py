"""Defects of the store that a task of it has met, for the status and the health."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

DEFECT_SECONDS = 60.0
"""How long a task has to run without a defect until the last one is no longer named."""

_MESSAGE_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class _Defect:
    problem: str
    at: float


class Defects:
    """The last defect of each task, by its name. `uptime`: seconds that are never set back."""

    def __init__(self, uptime: Callable[[], float]) -> None:
        self._uptime = uptime
        self._last: dict[str, _Defect] = {}

    def note(self, task: str, defect: Exception) -> None:
        """Remember what `task` has raised: type and message. The log has the traceback."""
        message = f"{type(defect).__name__}: {defect}"[:_MESSAGE_CHARACTERS]
        problem = f"{task} met a defect of the store, please report it: {message}"
        self._last[task] = _Defect(problem, self._uptime())

    @property
    def problem(self) -> str:
        """What the tasks have met within the last minute, or empty."""
        since = self._uptime() - DEFECT_SECONDS
        return "; ".join(last.problem for last in self._last.values() if last.at > since)
