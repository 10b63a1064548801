"""The ledger of published claims (results/claims.yaml): who said what of which machine, and the run that tests it here.

Reads and checks the file. What our engines say to a claim is claim_points.py's, and what follows from that is
claim_verdicts.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from engines.suggest import did_you_mean
from harness.errors import ConfigError
from harness.fields import Section

LEDGER = "claims.yaml"
THROUGHPUT = "output_tokens_per_s_whole_run"

Strings = tuple[str, ...]


class Ratio(Section):
    """One engine's figure over another's, or over the best of several."""

    ours: str
    theirs: Strings


class Trend(Section):
    """One engine's figure on one workload over that on another."""

    engine: str
    over: str
    of: str


class Trial(Section):
    """`set`: as on the command line. `workloads`: all of the experiment's if not given. One of the forms is given;
    `weights` takes no experiment: GiB of a model in 16 bit.
    """

    config: str = ""
    set: Strings = ()
    metric: str = THROUGHPUT
    workloads: Strings = ()
    ratio: Ratio | None = None
    figure: str | None = None  # of one engine
    trend: Trend | None = None
    weights: str | None = None  # of this model

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if sum(form is not None for form in (self.ratio, self.figure, self.trend, self.weights)) != 1:
            raise ValueError("give one of ratio, figure, trend, weights")
        if bool(self.config) != (self.weights is None):
            raise ValueError("give the config that it is tested with; weights needs none")
        return self

    def asks(self, workload: str) -> bool:
        if self.trend is not None:
            return workload in (self.trend.over, self.trend.of)
        return not self.workloads or workload in self.workloads

    @property
    def engines(self) -> frozenset[str]:
        if self.ratio is not None:
            return frozenset({self.ratio.ours, *self.ratio.theirs})
        return frozenset({self.trend.engine if self.trend is not None else str(self.figure)})


class Expect(Section):
    """`range`: on every point. `up_to`: at the best one. `at_least`, `at_most`: on every point."""

    range: tuple[float, float] | None = None
    up_to: float | None = None
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if sum(form is not None for form in (self.range, self.up_to, self.at_least, self.at_most)) != 1:
            raise ValueError("give one of range, up_to, at_least, at_most")
        return self

    @property
    def words(self) -> str:
        if self.range is not None:
            low, high = self.range
            return f"{low:g}" if low == high else f"{low:g}-{high:g}"
        if self.up_to is not None:
            return f"up to {self.up_to:g}"
        return f"{self.at_least:g} or more" if self.at_least is not None else f"{self.at_most:g} or less"


class Claim(Section):
    id: str
    who: str
    version: str  # of the paper or of the code
    source: Literal["abstract", "paper", "survey", "second-hand"]
    machine: str  # as published
    model: str
    workload: str
    says: str  # the claim, in a sentence
    expect: Expect
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.05  # of the value, for what a figure in print rounds away
    test: Trial | None = None
    untestable: str | None = None  # why there is no test

    @model_validator(mode="after")
    def _testable_or_not(self) -> Self:
        if (self.test is None) == (self.untestable is None):
            raise ValueError("give test or untestable")
        return self

    @property
    def values(self) -> tuple[float, ...]:
        """The figures in print."""
        given = (self.expect.up_to, self.expect.at_least, self.expect.at_most)
        return self.expect.range or tuple(value for value in given if value is not None)


_LEDGER: TypeAdapter[tuple[Claim, ...]] = TypeAdapter(tuple[Claim, ...])


def load_claims(text: str | None = None) -> tuple[Claim, ...]:
    """The ledger as it is shipped, or as given."""
    if text is None:
        text = resources.files("results").joinpath(LEDGER).read_text(encoding="utf-8")
    try:
        raw: Any = yaml.safe_load(text)
        claims = _LEDGER.validate_python(raw["claims"])
    except (yaml.YAMLError, TypeError, KeyError) as error:
        raise ConfigError(f"{LEDGER}: expected claims: and a list: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise ConfigError(
            f"{LEDGER}: claims.{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors()
        ) from None
    ids = [claim.id for claim in claims]
    if repeated := sorted({name for name in ids if ids.count(name) > 1}):
        raise ConfigError(f"{LEDGER}: two claims are called {', '.join(repeated)}")
    return claims


def chosen(claims: Sequence[Claim], names: Sequence[str]) -> tuple[Claim, ...]:
    """Those whose id begins with one of the names; all where none is given."""
    for name in names:
        if not any(claim.id.startswith(name) for claim in claims):
            raise ConfigError(
                f"--only {name}: no claim begins so; {did_you_mean(name, [claim.id for claim in claims])}"
            )
    return tuple(claim for claim in claims if not names or claim.id.startswith(tuple(names)))
