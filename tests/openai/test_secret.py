"""The key has no text form, and what a server says is quoted without it, in one short line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.openai.errors import EndpointError
from engines.openai.faults import Fault, FaultError
from engines.openai.secret import LONGEST_QUOTE, Secret

KEY = "sk-Ab3_9x.Zq/7="


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> Secret:
    monkeypatch.setenv("THE_KEY", f" {KEY}\n")
    return Secret("THE_KEY")


def test_it_goes_into_the_header_and_nowhere_else(secret: Secret) -> None:
    assert secret.headers == {"Authorization": f"Bearer {KEY}"}
    assert repr(secret) == str(secret) == f"{secret}" == "Secret(THE_KEY)"
    assert secret.is_set


def test_an_unset_one_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THE_KEY", raising=False)
    secret = Secret("THE_KEY")
    assert (secret.headers, secret.is_set) == ({}, False)
    assert secret.quote("anything") == "anything"


@pytest.mark.parametrize("value", ["two words", "a\nb: c", "schlüssel"])
def test_one_that_no_header_may_carry_is_refused_unseen(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("THE_KEY", value)
    with pytest.raises(EndpointError, match="THE_KEY") as raised:
        Secret("THE_KEY")
    assert value not in str(raised.value)


@given(st.text(), st.text(max_size=250), st.text())
def test_a_quote_is_one_short_line_without_it(before: str, between: str, after: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THE_KEY", KEY)
        found = Secret("THE_KEY").quote(f"{before}{KEY}{between}Bearer {KEY}{after}")
    assert KEY not in found
    assert KEY[:6] not in found or KEY[:6] in before + between + after, "not the half of it either"
    assert len(found) <= LONGEST_QUOTE + 3
    assert len(found.splitlines()) <= 1
    found.encode()


def test_line_breaks_do_not_hide_it(secret: Secret) -> None:
    """A message that is folded loses its line breaks, and must not put the key together again by that."""
    assert KEY not in secret.quote(f"{KEY[:5]}\x00{KEY[5:]} and {KEY}")


def test_an_account_is_ours_and_then_theirs(secret: Secret) -> None:
    assert secret.account(FaultError(Fault.REJECTED, "401 Unauthorized", f"wrong: {KEY}")) == (
        "401 Unauthorized: wrong: [key]"
    )
    assert secret.account(FaultError(Fault.SLOW, "not done")) == "not done"
