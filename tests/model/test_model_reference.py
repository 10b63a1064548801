"""The rules of comparison, and that the oracle is transformers undisturbed and undisturbing."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from engines.model import reference
from engines.model.errors import ModelError
from engines.model.reference import OracleRun, compare
from tests.model_folders import make_folder

CLEAR, TIE = 0.5, 0.9e-4


def run(*token_ids: int, gaps: tuple[float, ...] | None = None) -> OracleRun:
    return OracleRun(token_ids, gaps or (CLEAR,) * len(token_ids))


def test_equal_tokens_hold() -> None:
    parity = compare([[1, 2], [3]], [run(1, 2), run(3)])
    assert parity.holds
    assert str(parity) == "2 of 2 requests token-exact, 0 excused as near-ties"


def test_a_clear_difference_does_not_hold_and_is_told() -> None:
    parity = compare([[1, 9, 3]], [run(1, 2, 3, gaps=(CLEAR, 2e-4, CLEAR))])
    assert not parity.holds
    assert "request 0 differs at step 1: ours 9, oracle 2, gap 2.00e-04" in str(parity)


def test_a_near_tie_is_excused_and_what_follows_ignored() -> None:
    exact = [run(1, 2)] * 999
    parity = compare([[1, 9, 8, 7], *[[1, 2]] * 999], [run(1, 2, 3, 4, gaps=(CLEAR, TIE, CLEAR, CLEAR)), *exact])
    assert parity.excused == 1
    assert parity.holds


def test_a_near_tie_after_a_clear_difference_excuses_nothing() -> None:
    assert not compare([[9, 9]] + [[1]] * 999, [run(1, 2, gaps=(CLEAR, TIE))] + [run(1)] * 999).holds


def test_at_most_one_request_in_a_thousand_is_excused() -> None:
    tie = run(1, 2, gaps=(CLEAR, TIE))
    assert compare([[1, 9]] * 2 + [[1, 2]] * 1998, [tie] * 2 + [run(1, 2)] * 1998).holds
    assert not compare([[1, 9]] * 2 + [[1, 2]] * 1997, [tie] * 2 + [run(1, 2)] * 1997).holds
    assert not compare([[1, 9]], [tie]).holds


@pytest.mark.parametrize("ours", [[1], [1, 2, 3], []])
def test_another_length_is_never_excused(ours: list[int]) -> None:
    assert not compare([ours], [run(1, 2, gaps=(TIE, TIE))]).holds


def test_another_number_of_requests_is_a_mistake() -> None:
    with pytest.raises(ModelError, match="1 generated requests cannot be compared with 2"):
        compare([[1]], [run(1), run(1)])


def test_nothing_compared_proves_nothing() -> None:
    assert not compare([], []).holds


def test_gaps_are_those_of_the_teacher_forced_logits(model_root: Path) -> None:
    folder = make_folder(model_root)
    [oracle] = reference.greedy(folder, [[5, 6, 7]], 4)
    logits = reference.teacher_forced_logits(folder, [5, 6, 7, *oracle.token_ids[:-1]])[2:]
    top = logits.topk(2).values
    assert logits.argmax(-1).tolist() == list(oracle.token_ids)
    torch.testing.assert_close(torch.tensor(oracle.gaps), (top[:, 0] - top[:, 1]) / logits.std(-1), rtol=1e-3, atol=0)


def test_generation_settings_in_the_folder_change_nothing(model_root: Path, tmp_path: Path) -> None:
    folder = make_folder(model_root)
    [plain] = reference.greedy(folder, [[5, 6, 7]], 20)
    bent = shutil.copytree(folder, tmp_path / "bent")
    settings = {"eos_token_id": list(plain.token_ids), "repetition_penalty": 5.0, "max_length": 5}
    (bent / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
    assert reference.greedy(bent, [[5, 6, 7]], 20) == [plain]


def test_both_attentions_agree_and_leave_settings_and_output_alone(
    model_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    folder = make_folder(model_root)
    eager = reference.greedy(folder, [[5, 6, 7]], 8, attention="eager")
    assert compare([run.token_ids for run in eager], reference.greedy(folder, [[5, 6, 7]], 8)).holds
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")


def test_mistakes_of_the_caller(model_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model folder at"):
        reference.greedy(tmp_path / "absent", [[1]], 1)
    with pytest.raises(ModelError, match="at least one prompt"):
        reference.logit_bound(make_folder(model_root), torch.bfloat16, [])


def test_in_float32_the_spread_is_tiny(model_root: Path) -> None:
    prompts = [[5, 6, 7, 8], [9, 10, 11, 12, 13]]
    assert reference.logit_bound(make_folder(model_root), torch.float32, prompts) < 1e-4
