"""What a cell did, operator by operator, over its whole run: how often, for how long, and with how many bytes."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from results.fields import Fields


@dataclass(frozen=True, slots=True)
class OperatorRow:
    """`unit` is what was busy with it. `seconds` are as the cell's label says; `bytes` are worked out from sizes."""

    operator: str
    unit: str
    ops: int
    seconds: float
    bytes: float

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: object, source: str) -> OperatorRow:
        fields = Fields.of(data, source)
        return cls(
            operator=fields.text("operator"),
            unit=fields.text("unit"),
            ops=fields.integer("ops"),
            seconds=fields.number("seconds"),
            bytes=fields.number("bytes"),
        )
