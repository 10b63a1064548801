"""The constants of the judgement, and why they are what they are.

Every night is another look at the same growing history. At the usual 0.05 a look, one series in two would have cried
wolf within a fortnight, and a tracker that does is switched off. What holds the rate down, in order of strength:

* *Exchangeable nights, one look*: the permutation test grants every order its best split, so a look errs with at most
  `significance`. Expectation is linear, so looks need not be independent for the **share of nights** to stay below it:
  1 %, from this rule alone. But 1 % a night is four alarms a year for each series; that is a bound, not a goal.
* *A bar*: the size must also reach `min_effect` and `floor_factor` times the noise of one night. Medians of three
  nights and of the 20 before are 1.25 sqrt(1/3 + 1/20) = 0.77 sd apart by chance, so 2.5 sd have p = 0.001. Two nights
  together are what a bad weekend of the machine looks like; they need `hasty_factor`, 3.5 (p = 4e-6), or a third night.
* *Persistence*: two nights since the change, the last of them on the same side by half the bar; one bad night is none.
* *A rerun*, whose own median must agree. The first repeats of a night are looked at because they are unusual, so they
  overstate; those made after that do not.

Power, the other side: two nights after 20 can reach p = 2 / C(22, 2) = 0.009 at best, three 2 / C(23, 3) = 0.001,
hence `significance` 0.01: a smaller one would need a third or fourth night always. A step of 5 % with 1 % between
nights and 1 % between repeats (1.2 % for a night's median of 3) lies 2 % above the bar of 3 %, 2.1 sd of the difference
at its third night, and in most cases was told at its second, where 4.2 % are needed.

Neighbouring nights that are alike (AR) break exchangeability, and heavy tails fool the noise estimate;
`harness bench tracking` prints what the rates are then.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    min_effect: float = 0.03  # relative; smaller changes are not alerted
    significance: float = 0.01
    floor_factor: float = 2.5
    hasty_factor: float = 3.5  # in place of floor_factor while a change is only two nights old
    control_factor: float = 4.0  # a night whose control is this far out is dropped; a lower gate drops honest nights
    # The noise is an estimate from as few as 10 nights, a quarter off as often as not: the bar rises quietly to here,
    # and only beyond is a series called too noisy.
    noisy_bar: float = 0.05
    learning_nights: int = 10
    level_nights: int = 3  # so many before a change within a level; noise is known from the levels before
    memory_nights: int = 90  # with those of earlier levels; of a level itself twice as many (memory.py says which)
    drift_days: int = 14  # how far back the level is that recent nights are compared with
    drift_nights: int = 5  # how many make up either side of that
    missing_days: int = 3
    ack_reach_days: int = 3  # an acknowledged day is meant for changes dated as near as this
    least_requests: int = 20  # of a cell; with fewer, one slow request is a change


DEFAULT = Rules()
