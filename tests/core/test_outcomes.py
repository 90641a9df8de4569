"""What is said of an outcome, in words and to whom asks for some of them."""

import pytest

from sendengine.core.outcomes import (
    Abandoned,
    Accepted,
    Ambiguous,
    Expired,
    GaveUp,
    Outcome,
    Rejected,
    Unreachable,
    is_chosen,
    may_have_been_sent,
    reason_of,
)


@pytest.mark.parametrize(
    ("outcome", "reason", "maybe_sent"),
    [
        (Accepted(("m",)), "", False),
        (Unreachable(), "nobody is subscribed", False),
        (Unreachable(("All included players are not subscribed",)), "All included players are not subscribed", False),
        (Rejected(403), "status 403", False),
        (Rejected(400, ("no text", "no id")), "no text; no id", False),
        (GaveUp("status 503"), "status 503", False),
        (GaveUp("status 503", maybe_sent=True), "status 503", True),
        (Ambiguous("the reply was lost"), "the reply was lost", True),
        (Expired(("u1",)), "its deadline passed before it was sent", False),
        (Abandoned(not_sent=("u1",)), "the run was stopped first", False),
        (Abandoned(maybe_sent=True), "the run was stopped first", True),
    ],
)
def test_an_outcome_says_why_and_whether_it_may_have_been_sent(outcome: Outcome, reason: str, maybe_sent: bool) -> None:
    assert (reason_of(outcome), may_have_been_sent(outcome)) == (reason, maybe_sent)


def test_failures_are_chosen_by_outcome_or_by_what_they_say() -> None:
    refused = {"outcome": "rejected", "reason": "Unknown Template"}
    chosen = {reason: is_chosen([reason], **refused) for reason in ("rejected", "template", "gave_up")}
    assert chosen == {"rejected": True, "template": True, "gave_up": False}
    assert is_chosen([], **refused)
    assert is_chosen(["gave_up", "template"], **refused)
