"""A stack's ledger on its way to another computer: it arrives as it was, and small."""

import pickle

import pytest

from spheroidd.daemon.scoring.messages import StoredLedger
from spheroidd.protocols.sim_pattern import SimPattern
from spheroidd.protocols.stack import CHANNELS, Block, StackKey, StackPlan
from spheroidd.protocols.well import WellId

KEY = StackKey("P1", WellId(1, 2))


@pytest.mark.parametrize("raw", [None, SimPattern(3, 5)], ids=["slices", "raw frames"])
@pytest.mark.parametrize("missing", [0, 7])
def test_a_ledger_arrives_as_it_was_in_few_bytes_a_line(raw: SimPattern | None, missing: int) -> None:
    plan = StackPlan(KEY, CHANNELS, 200, 8, 8, 0.125, 0.5, raw=raw)
    held = {index: 2**32 - 1 - number for number, index in enumerate(plan.indices()) if number >= missing}
    ledger = StoredLedger(plan, held, ((3, Block(KEY, "488", 0, 8)), (9, Block(KEY, "561", 0, 8))))
    sent = pickle.dumps(ledger)
    arrived = pickle.loads(sent)
    assert arrived == ledger
    assert {type(index) for index in arrived.acknowledged(KEY)} == {type(index) for index in held}
    assert arrived.blocks(KEY, after=3) == ledger.blocks(KEY, after=3)
    assert len(sent) < 2000 + 10 * len(held)
