"""Aliases of the registry: promote, and back."""

import pytest

from forecast.errors import NothingBefore, UnknownModel
from pipelines.promotion import decision as _decision
from pipelines.promotion.gate import Verdict
from pipelines.tracking import registry as publish


@pytest.fixture
def versions(trained, request):
    """Three versions of a model of the test's own, none promoted."""
    name = request.node.name[:60]
    made = [
        publish.register(trained.tracking, trained.outcome.model_uri, name, trained.outcome.run_id)
        for _ in range(3)
    ]
    assert made == [1, 2, 3]
    return name


def aliases(tracking, name):
    found = {}
    for alias in ("champion", "challenger", "previous"):
        version = tracking.find(name, alias)
        found[alias] = version.version if version else None
    return found


def test_registered_model_is_challenger_only(trained, versions):
    """The newest version is the challenger; nobody is champion."""
    assert aliases(trained.tracking, versions) == {
        "champion": None,
        "challenger": 3,
        "previous": None,
    }


def test_promotion_keeps_the_one_before(trained, versions):
    """The champion that leaves stays known as `previous`."""
    publish.promote(trained.tracking, versions, 1)
    change = publish.promote(trained.tracking, versions, 3)

    assert change == publish.Change(versions, 3, 1)
    assert aliases(trained.tracking, versions) == {
        "champion": 3,
        "challenger": 3,
        "previous": 1,
    }


def test_promoting_the_champion_again_changes_nothing(trained, versions):
    """A promotion that is repeated after a crash does not lose `previous`."""
    publish.promote(trained.tracking, versions, 1)
    publish.promote(trained.tracking, versions, 2)

    change = publish.promote(trained.tracking, versions, 2)

    assert change == publish.Change(versions, 2, 1)
    assert aliases(trained.tracking, versions)["previous"] == 1


def test_rollback_swaps_and_can_be_taken_back(trained, versions):
    """A rollback puts the previous champion back; a second one undoes it."""
    publish.promote(trained.tracking, versions, 1)
    publish.promote(trained.tracking, versions, 2)

    first = publish.rollback(trained.tracking, versions)
    second = publish.rollback(trained.tracking, versions)

    assert (first.champion, first.previous) == (1, 2)
    assert (second.champion, second.previous) == (2, 1)


def test_rollback_of_the_first_champion_is_refused(trained, versions):
    """There is nothing to go back to, and the message says so."""
    publish.promote(trained.tracking, versions, 1)

    with pytest.raises(NothingBefore, match="version 1 was the first"):
        publish.rollback(trained.tracking, versions)


def test_unknown_version_is_refused_and_nothing_moves(trained, versions):
    """A promotion of what is not there leaves the aliases alone."""
    publish.promote(trained.tracking, versions, 1)

    with pytest.raises(UnknownModel, match="no version '9'"):
        publish.promote(trained.tracking, versions, 9)

    assert aliases(trained.tracking, versions)["champion"] == 1


def test_refused_verdict_is_noted_on_the_version(trained, versions):
    """The reason is on the version, and the champion stays."""
    verdict = Verdict(False, "not better")

    decided = _decision.decide(trained.tracking, versions, 2, verdict, champion=None)

    version = trained.tracking.version(versions, "2")
    assert decided == (verdict, None)
    assert version.tags["validation_status"] == "rejected"
    assert version.tags["gate.reason"] == "not better"


def test_verdict_over_the_champion_in_service_promotes(trained, versions):
    """The one that was judged still serves: the challenger takes over."""
    publish.promote(trained.tracking, versions, 1)

    verdict, change = _decision.decide(
        trained.tracking, versions, 2, Verdict(True, "better"), champion=1
    )

    assert verdict == Verdict(True, "better")
    assert change == publish.Change(versions, 2, 1)
    assert trained.tracking.version(versions, "2").tags["validation_status"] == "approved"


@pytest.mark.parametrize(
    ("judged", "serving", "said"),
    [(1, 2, "from v1 to v2"), (None, 1, "from none to v1"), (1, None, "from v1 to none")],
)
def test_verdict_over_another_champion_does_not_promote(trained, versions, judged, serving, said):
    """Nobody has compared the version with the one that serves by now: it stays challenger."""
    if serving is not None:
        publish.promote(trained.tracking, versions, serving)

    verdict, change = _decision.decide(
        trained.tracking, versions, 3, Verdict(True, "better"), champion=judged
    )

    version = trained.tracking.version(versions, "3")
    assert change is None
    assert verdict == Verdict(False, f"the champion changed meanwhile {said}: train again")
    assert version.tags["validation_status"] == "rejected"
    assert version.tags["gate.reason"] == verdict.reason
    assert aliases(trained.tracking, versions)["champion"] == serving
