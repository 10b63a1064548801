"""Bytes of ops against a count by hand, and names for all of them."""

import pytest

from engines.core.cost import Work, work_of
from engines.core.ops import Op, OpKind, Program, RowsOf
from engines.core.pipeline import lower
from engines.core.placement import Part
from engines.core.traffic import NAMES, WEIGHTS_ONLY, bytes_of, operator_of
from engines.core.types import Batch, BlockChanges, Mode, Move, PrefillChunk, StepPlan, Tier, Unit
from tests.placements import placements
from tests.sizes import SIZES

LAYERS = 4
QKV, OUTPUT, UP, DOWN = 600, 200, 800, 400
# Two decodes with 32 and 16 tokens of KV, eight prompt tokens after sixteen, and eight of a new prompt.
BATCH = Batch((0, 1), (31, 15), (PrefillChunk(2, 9, 16, 8, True), PrefillChunk(3, 10, 0, 8, False)))
WORK = work_of(BATCH)
HOST = Work(host_rows=3, host_kv_tokens=70, host_prefill_tokens=5, host_prefill_context=9)
MOVES = (Move(8, Tier.ACCEL, (0,), Tier.HOST, (0,), 20),)


def op(kind: OpKind, *parts: Part, **options: object) -> Op:
    return Op(0, kind, Unit.GPU, 0, (), parts=parts, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "work", "expected"),
    [
        (op(OpKind.FIRST), WORK, QKV),
        (op(OpKind.BETWEEN), WORK, QKV + OUTPUT + UP + DOWN),
        (op(OpKind.LAST), WORK, OUTPUT + UP + DOWN + 300),
        (op(OpKind.LAST), WORK._replace(sampled=0), OUTPUT + UP + DOWN),
        (op(OpKind.ATTENTION), WORK, (32 + 16 + 24 + 8) * 40),
        (op(OpKind.ATTENTION, rows=RowsOf.PROMPTS), WORK, (24 + 8) * 40),
        (op(OpKind.IN_PLACE_ATTENTION, rows=RowsOf.DECODES), WORK, (32 + 16) * 40),
        (op(OpKind.HOST_ATTENTION), HOST, 70 * 40),
        (op(OpKind.ROWS_TO_HOST), HOST, 3 * 30 * 2),
        (op(OpKind.ROWS_TO_ACCEL), HOST, 3 * 10 * 2),
        (op(OpKind.PROMPT_TO_HOST), HOST, 5 * 40),
        (op(OpKind.PROMPT_TO_ACCEL), HOST, 9 * 40),
        (op(OpKind.MOVE, move=0), WORK, 20 * 40 * LAYERS),
        (op(OpKind.MATRIX, Part.OUTPUT, Part.UP, Part.DOWN), WORK, OUTPUT + UP + DOWN),
        (op(OpKind.HOST_MATRIX, Part.UP, share=0.25), WORK, UP / 4),
        (op(OpKind.WEIGHTS_TO_ACCEL, Part.DOWN, share=0.5), WORK, DOWN / 2),
        (op(OpKind.READ_WEIGHTS, Part.UP, packed=True), WORK, 40 * (64 / 2 + 4)),
        (op(OpKind.HIDDEN_TO_HOST), WORK, 18 * 10 * 2),
        (op(OpKind.INPUT_TO_ACCEL, Part.DOWN), WORK, 18 * 20 * 2),
        (op(OpKind.INPUT_TO_ACCEL, Part.OUTPUT, rows=RowsOf.DECODES), WORK, 2 * 10 * 2),
        (op(OpKind.OUTPUT_TO_ACCEL, Part.UP, share=0.25), WORK, 18 * 10 * 2),
        (op(OpKind.QKV_TO_HOST, rows=RowsOf.DECODES), WORK, 2 * 30 * 2),
        (op(OpKind.KV_TO_HOST), WORK, 16 * 40),
        (op(OpKind.KV_TO_ACCEL), WORK, 16 * 40),
        (op(OpKind.READ_KV, rows=RowsOf.DECODES), WORK, (31 + 15) * 40),
        (op(OpKind.WRITE_KV), WORK, (2 + 16) * 40),
        (op(OpKind.HEAD), WORK, 300),
    ],
    ids=lambda given: given.kind.value if isinstance(given, Op) else "",
)
def test_bytes_by_hand(one: Op, work: Work, expected: float) -> None:
    assert bytes_of(one, work, MOVES, SIZES) == expected


def test_every_kind_has_a_name() -> None:
    by_parts = {OpKind.MATRIX, OpKind.HOST_MATRIX}
    assert set(OpKind) - set(NAMES) == by_parts
    assert operator_of(op(OpKind.MATRIX, Part.OUTPUT, Part.UP, Part.DOWN)) == "output+up+down"
    assert operator_of(op(OpKind.BETWEEN)) == "output+up+down+qkv"


def test_what_is_weights_only_does_not_ask_for_rows() -> None:
    for kind in WEIGHTS_ONLY:
        one = op(kind, Part.UP)
        assert bytes_of(one, WORK, (), SIZES) == bytes_of(one, HOST, (), SIZES) > 0


@pytest.mark.parametrize("kind", placements(LAYERS))
def test_wherever_weights_are_each_is_read_once_for_all_rows(kind: str) -> None:
    placement = placements(LAYERS)[kind]
    program: Program = lower(StepPlan(1, Mode.PLACED, (BATCH,), BlockChanges()), placement)
    computed = [
        bytes_of(each, WORK, (), SIZES) for each in program.ops if each.kind in (OpKind.MATRIX, OpKind.HOST_MATRIX)
    ]
    assert sum(computed) == pytest.approx(LAYERS * (QKV + OUTPUT + UP + DOWN))
    brought = [bytes_of(each, WORK, (), SIZES) for each in program.ops if each.kind is OpKind.WEIGHTS_TO_ACCEL]
    moved = [split.moved for layer in placement.layers for split in layer.splits]
    assert sum(brought) == pytest.approx(sum(share * (QKV, OUTPUT, UP, DOWN)[at % 4] for at, share in enumerate(moved)))
    assert all(bytes_of(each, WORK, (), SIZES) > 0 for each in program.ops)
