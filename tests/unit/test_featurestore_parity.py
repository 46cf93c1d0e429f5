"""Parity: served values that the log gives otherwise are named by cause, and only a fault stays unexplained."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from driftloop.contracts.serving.v1.serving_pb2 import Prediction, Reading, Vector
from driftloop.featurestore.parity import Logged, Parity, Place, Values, compare
from tests.featurestore_twin import SEEN, SOLD, shop

KEY = f"{SOLD.name}|a"
OLD, NEW = Logged("u1", 100, 1, (1.5, 1.0)), Logged("u2", 200, 2, (2.5, 2.0))
CORRECTED = Logged("u3", 100, 3, (4.0, 2.0))
BACKFILLED = Logged("shop/backfill/1/x/7", 100, -5, (9.0, 3.0))
NAN = float("nan")


def _served(values: Values, reading: Reading, as_of_us: int = 250, digest: str = shop.inputs_digest) -> Prediction:
    mean, count = values
    unknown = [Reading(view=SEEN.name, key=f"{SEEN.name}|t")]
    vector = Vector(inputs_digest=digest, numbers=[mean, count, NAN], texts=["town", ""], readings=[reading, *unknown])
    assert mean is not None
    return Prediction(id="p", as_of_us=as_of_us, vector=vector)


def _reading(update: Logged) -> Reading:
    return Reading(view=SOLD.name, key=KEY, found=True, known_at_us=update.known_at_us, update_id=update.update_id)


def _compared(prediction: Prediction, log: Sequence[Logged]) -> Parity:
    def joined(places: Sequence[Place]) -> list[Logged | None]:
        def newest(place: Place) -> Logged | None:
            known = [each for each in log if place.view == SOLD.name and each.known_at_us <= place.at_us]
            return max(known, key=lambda each: (each.known_at_us, abs(each.sequence)), default=None)

        return [newest(place) for place in places]

    return compare(shop, [prediction], joined, lambda view, ids: {u.update_id: u for u in log if u.update_id in ids})


def _causes(found: Parity) -> set[str]:
    return {cause for _, cause in found.mismatches}


def test_what_was_served_as_it_is_logged_is_no_mismatch() -> None:
    found = _compared(_served((2.5, 2.0), _reading(NEW)), [OLD, NEW])
    assert (found.predictions, found.values, found.mismatches) == (1, len(SOLD.features) + len(SEEN.features), {})


def test_a_newer_update_that_serving_had_not_seen_yet_is_named_so() -> None:
    found = _compared(_served((1.5, 1.0), _reading(OLD)), [OLD, NEW])
    assert _causes(found) == {"not yet visible"}
    assert sum(found.mismatches.values()) == 2


def test_an_entity_of_which_serving_knew_nothing_yet_is_named_so() -> None:
    unknown = Reading(view=SOLD.name, key=KEY)
    mean, count = (feature.default for feature in SOLD.features)
    assert _causes(_compared(_served((mean, count), unknown), [OLD])) == {"not yet visible"}


def test_an_update_that_serving_had_before_its_clock_passed_is_compared_at_that_updates_time() -> None:
    assert not _compared(_served((2.5, 2.0), _reading(NEW), as_of_us=150), [OLD, NEW]).mismatches


@pytest.mark.parametrize("later", [CORRECTED, BACKFILLED])
def test_a_past_that_was_corrected_since_is_named_so(later: Logged) -> None:
    assert _causes(_compared(_served((1.5, 1.0), _reading(OLD)), [OLD, later])) == {"correction"}


def test_last_digits_are_rounding() -> None:
    assert _causes(_compared(_served((2.5 * (1 + 1e-12), 2.0), _reading(NEW)), [NEW])) == {"rounding"}


def test_the_same_update_with_another_value_is_code() -> None:
    assert _causes(_compared(_served((7.0, 2.0), _reading(NEW)), [NEW])) == {"code"}


def test_other_inputs_than_today_are_code() -> None:
    found = _compared(_served((2.5, 2.0), _reading(NEW), digest="another"), [NEW])
    assert _causes(found) == {"code"}
    assert found.values == 0


def test_a_value_that_the_log_does_not_have_is_unexplained() -> None:
    ghost = Logged("ghost", 240, 9, (8.0, 8.0))
    found = _compared(_served((8.0, 8.0), _reading(ghost)), [OLD, NEW])
    assert _causes(found) == {"unexplained"}
    assert found.unexplained == 2
    assert found.examples[0].served == 8.0
