"""The record of a cell's token check, as its summary holds it. How tokens are checked is not told here."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from results.fields import Fields


@dataclass(frozen=True, slots=True)
class ParityCheck:
    """Whether the tokens that were timed are those that the model's oracle would have given.

    `held` is None where nothing was checked; `note` says why, or in one sentence what was found.
    """

    checked_requests: int = 0
    checked_tokens: int = 0
    excused: int = 0  # near-ties that rounding may turn around
    held: bool | None = None
    note: str = ""

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: object, source: str) -> ParityCheck:
        fields = Fields.of(data, source)
        return cls(
            checked_requests=fields.integer("checked_requests"),
            checked_tokens=fields.integer("checked_tokens"),
            excused=fields.integer("excused"),
            held=fields.flag("held", None),
            note=fields.text("note", ""),
        )
