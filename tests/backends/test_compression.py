"""Four bits per element, half a step of error at most: for every float, shape, size of group and range of values."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engines.backends import compression
from engines.backends.compression import Packed, pack, unpack
from engines.core.packing import GROUP, even_group, packed_bytes

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
SHAPES = ((64,), (1, 64), (5, 128), (3, 1), (3, 63), (3, 65), (7, 200), (2, 3, 4, 96), (0, 64), (4, 0, 70))


def drawn(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, scale: float = 1.0) -> Tensor:
    """Not around zero: a low that is lost must be seen."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)
    return ((values + 0.5) * scale).to(dtype)


def steps(packed: Packed) -> Tensor:
    """[..., inputs] float64: the step of every element's group."""
    return packed.step.double().repeat_interleave(packed.group, -1)[..., : packed.shape[-1]]


def by_hand(values: list[float], group: int) -> list[float]:
    """The rule, one element at a time."""
    restored = []
    for first in range(0, len(values), group):
        members = values[first : first + group]
        low, step = min(members), (max(members) - min(members)) / 15
        restored += [low + (round((value - low) / step) if step else 0) * step for value in members]
    return restored


def check(tensor: Tensor, packed: Packed) -> None:
    """Within half a step, plus half a place of the dtype for the result, and what float32 makes of quotients."""
    restored = unpack(packed)
    assert (restored.shape, restored.dtype, restored.device) == (tensor.shape, tensor.dtype, tensor.device)
    error = (restored.double() - tensor.double()).abs()
    place = torch.finfo(tensor.dtype).eps / 2 * restored.double().abs()
    place += 16 * torch.finfo(torch.float32).eps * steps(packed)
    assert (error <= steps(packed) / 2 + place).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_element_comes_back_within_half_a_step(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensor = drawn(shape, dtype)
    for group in (2, 32, GROUP):
        packed = pack(tensor, group)
        check(tensor, packed)
        assert (packed.shape, packed.dtype, packed.group) == (shape, dtype, group)
        assert packed.nbytes == packed_bytes(shape, group, dtype.itemsize)
        assert packed.codes.dtype == torch.uint8


@pytest.mark.gpu
def test_so_it_does_on_a_device() -> None:
    for shape in SHAPES:
        for dtype in DTYPES:
            tensor = drawn(shape, dtype).cuda()
            check(tensor, pack(tensor))


@pytest.mark.parametrize(("inputs", "group"), [(64, 64), (130, 64), (7, 2), (50, 16)])
def test_it_is_the_rule_that_is_stated(inputs: int, group: int) -> None:
    tensor = drawn((inputs,), torch.float64)
    expected = torch.tensor(by_hand(tensor.tolist(), group), dtype=torch.float64)
    torch.testing.assert_close(unpack(pack(tensor, group)), expected, rtol=1e-12, atol=1e-12)


def test_the_bound_is_reached() -> None:
    """An element half way between two levels is off by half a step: the bound is not loose."""
    tensor = torch.arange(0, 16, 0.5, dtype=torch.float64)[:31]
    packed = pack(tensor, 32)
    assert packed.step.tolist() == [1.0]
    assert (unpack(packed) - tensor).abs().max() == 0.5


def test_a_step_is_a_fifteenth_of_the_range_and_never_more() -> None:
    for dtype in DTYPES:
        tensor = drawn((500, 64), dtype)
        packed = pack(tensor)
        fifteenth = (tensor.double().amax(-1) - tensor.double().amin(-1)) / 15
        assert torch.equal(packed.low[:, 0], tensor.amin(-1))
        assert (packed.step[:, 0].double() <= fifteenth).all()
        assert (packed.step[:, 0].double() >= fifteenth * (1 - 2 * torch.finfo(dtype).eps)).all()


def test_byte_j_holds_elements_j_and_half_a_group_further() -> None:
    tensor = torch.arange(16.0)
    packed = pack(tensor, 16)
    assert packed.codes.tolist() == [low | (low + 8) << 4 for low in range(8)]
    assert torch.equal(unpack(packed), tensor)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("value", [0.0, -0.1, 3.7, 6e4, -6e4, 1e-7])
def test_a_constant_group_comes_back_exactly(value: float, dtype: torch.dtype) -> None:
    tensor = torch.full((3, 100), value, dtype=dtype)
    tensor[1] = drawn((100,), dtype)  # between them a group that is not
    packed = pack(tensor)
    assert torch.equal(unpack(packed)[[0, 2]], tensor[[0, 2]])
    assert not packed.codes[[0, 2]].any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_largest_and_the_smallest_numbers_fit(dtype: torch.dtype) -> None:
    limits = torch.finfo(dtype)
    widest = min(limits.max, torch.finfo(torch.float32).max / 2) if dtype != torch.float64 else limits.max / 2
    least = limits.smallest_normal * limits.eps  # the smallest number of all, below the normal ones
    patterns = [[-widest, widest, 0.0], [-widest, 1.0, 2.0], [widest, 1.0, 2.0]]
    if dtype != torch.float64:  # whose fifteenths there is nothing finer to compute in
        patterns += [[0.0, 22 * least, 9 * least], [0.0, least, least], [-least, 0.0, least]]
    for pattern in patterns:
        tensor = torch.tensor(pattern, dtype=torch.float64).repeat(22)[:64].to(dtype)
        packed = pack(tensor)
        assert unpack(packed).isfinite().all()
        error = (unpack(packed).double() - tensor.double()).abs()
        assert (error <= packed.step.double() / 2 + limits.eps * tensor.double().abs().max()).all()


def test_steps_below_the_normal_numbers_are_rounded_up_as_well() -> None:
    """22 smallest numbers in 15 steps: a step rounded to the nearest, 1, would lose a third of the range."""
    least = torch.finfo(torch.float16).smallest_normal * torch.finfo(torch.float16).eps
    tensor = (torch.tensor([0.0, 22.0, 10.0, 21.0]) * least).half()
    packed = pack(tensor, 4)
    assert packed.step.tolist() == [2 * least]
    assert (unpack(packed).double() - tensor.double()).abs().max() <= least


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_visible_and_in_its_group(bad: float) -> None:
    tensor = drawn((2, 192))
    tensor[1, 70] = bad
    restored = unpack(pack(tensor))
    assert not restored[1, 64:128].isfinite().any()
    restored[1, 64:128], tensor[1, 64:128] = 0, 0
    check(tensor, pack(tensor))
    assert restored.isfinite().all()


def test_what_fills_up_the_last_group_does_not_widen_it() -> None:
    """Zeros, the obvious filling, would: these values are far from zero."""
    tensor = 1000 + drawn((4, 70))
    packed = pack(tensor)
    assert (packed.step[:, 1] < 1).all()
    assert torch.equal(packed.low[:, 1], tensor[:, 64:].amin(-1))


@pytest.mark.parametrize("piece_elements", [1, 128, 5 * 128, 17 * 128 - 1, 17 * 128])
def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch, piece_elements: int) -> None:
    tensor = drawn((17, 100), torch.bfloat16)
    whole = pack(tensor)
    restored = unpack(whole)
    monkeypatch.setattr(compression, "PIECE_ELEMENTS", piece_elements)
    pieced = pack(tensor)
    assert all(torch.equal(*pair) for pair in zip(whole.tensors(), pieced.tensors(), strict=True))
    assert torch.equal(unpack(pieced), restored)


class Results(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The sizes of everything that the operations of a block return, in elements."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        whole = (leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        self.elements += [leaf.untyped_storage().nbytes() // leaf.itemsize for leaf in whole]
        return result


def test_a_big_matrix_needs_little_temporary_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """No operation makes anything between a piece and the matrix (the codes have half of its elements)."""
    tensor, out = drawn((256, 256)), torch.empty(256, 256)
    monkeypatch.setattr(compression, "PIECE_ELEMENTS", 1024)
    with Results() as packing:
        packed = pack(tensor)
    with Results() as unpacking:
        unpack(packed, out)
    kept = {tensor.numel(), packed.codes.numel(), packed.low.numel()}
    for results in (packing, unpacking):
        assert kept & set(results.elements)
        assert 256 < max(set(results.elements) - kept) <= 1024


def test_rows_and_strides_of_the_source_do_not_matter() -> None:
    wide = drawn((6, 5, 256))
    for view in (wide[:, 1:3, 10:138], wide.transpose(0, 1), wide[::2, 1]):
        own, strided = pack(view.contiguous()), pack(view)
        assert all(torch.equal(*pair) for pair in zip(own.tensors(), strided.tensors(), strict=True))


def test_unpacking_fills_any_view_and_nothing_beside_it() -> None:
    tensor = drawn((4, 3, 100))
    room = torch.full((3, 4, 120), 7.0)
    out = room.transpose(0, 1)[:, :, 10:110]
    assert unpack(pack(tensor), out) is out
    assert torch.equal(out, unpack(pack(tensor)))
    out.fill_(7)
    assert (room == 7).all()


def test_a_view_of_rows_is_those_rows() -> None:
    packed = pack(drawn((10, 100)))
    part = packed.rows(3, 7)
    assert part.shape == (4, 100)
    assert torch.equal(unpack(part), unpack(packed)[3:7])
    assert part.nbytes == packed_bytes((4, 100), GROUP, 4)
    assert all(own.data_ptr() > whole.data_ptr() for own, whole in zip(part.tensors(), packed.tensors(), strict=True))
    packed.codes[3:7] = 0
    assert not part.codes.any()


def test_a_matrix_crosses_a_link_piece_by_piece() -> None:
    packed = pack(drawn((10, 100), torch.float16))
    staged = packed.empty_like()
    assert staged.nbytes == packed.nbytes
    for begin in range(0, 10, 4):
        end = min(begin + 4, 10)
        assert staged.rows(begin, end).copy_(packed.rows(begin, end)).shape == (end - begin, 100)
    assert torch.equal(unpack(staged), unpack(packed))
    assert not {each.data_ptr() for each in staged.tensors()} & {each.data_ptr() for each in packed.tensors()}


@pytest.mark.gpu
def test_a_matrix_crosses_a_real_link() -> None:
    packed = pack(drawn((10, 100), torch.float16))
    staged = packed.empty_like(pin=True).copy_(packed)
    there = staged.empty_like(torch.device("cuda")).copy_(staged, non_blocking=True)
    torch.cuda.synchronize()
    assert all(each.is_pinned() for each in staged.tensors())
    torch.testing.assert_close(unpack(there).cpu(), unpack(packed), rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    "other", [drawn((1, 128)), drawn((4, 120)), drawn((4, 128), torch.float16)], ids=["rows", "inputs", "dtype"]
)
def test_copying_another_kind_is_refused(other: Tensor) -> None:
    with pytest.raises(ValueError, match="cannot be copied"):
        pack(drawn((4, 128))).copy_(pack(other))


def test_another_size_of_group_is_another_kind() -> None:
    with pytest.raises(ValueError, match="groups of 32"):
        pack(drawn((4, 128))).copy_(pack(drawn((4, 128)), 32))


def test_what_cannot_be_packed_is_refused() -> None:
    with pytest.raises(TypeError, match="int64"):
        pack(torch.arange(64))
    with pytest.raises(ValueError, match="even"):
        pack(drawn((64,)), 3)
    for shape in ((), (3, 0)):
        with pytest.raises(ValueError, match="no elements"):
            pack(torch.empty(shape))
    with pytest.raises(ValueError, match="cannot be unpacked"):
        unpack(pack(drawn((4, 128))), torch.empty(4, 120))
    with pytest.raises(ValueError, match="cannot be unpacked"):
        unpack(pack(drawn((4, 128))), torch.empty(4, 128, dtype=torch.float16))


def test_sizes_by_hand() -> None:
    assert packed_bytes((4096, 4096)) == 4096 * 64 * (32 + 4)  # 4.5 bits per element
    assert packed_bytes((3, 65), 64, 2) == 3 * 2 * 36
    assert packed_bytes((64,), 64, 4) == 40


@pytest.mark.parametrize(
    ("inputs", "group"), [(128, 64), (64, 64), (32, 32), (80, 40), (96, 48), (256, 64), (130, 44), (1, 2), (7, 8)]
)
def test_groups_that_a_head_fills(inputs: int, group: int) -> None:
    assert even_group(inputs) == group
