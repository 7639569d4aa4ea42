"""The aliases of the registry after registering, promotion and rollback."""

import pytest

from forecast.errors import NothingBefore, UnknownModel
from pipelines.promotion.decision import decide
from pipelines.promotion.gate import Verdict
from pipelines.tracking import registry


@pytest.fixture
def versions(trained, request):
    """Register three versions of a model for this test alone; return its name."""
    name = request.node.name[:60]
    numbers = [
        registry.register(trained.tracking, trained.outcome.model_uri, name, trained.outcome.run_id)
        for _ in range(3)
    ]
    assert numbers == [1, 2, 3]
    return name


def aliases(tracking, name):
    """Return the version of each alias, or None."""
    numbers = {}
    for alias in ("champion", "challenger", "previous"):
        version = tracking.find(name, alias)
        numbers[alias] = version.version if version else None
    return numbers


def test_registered_model_is_only_the_challenger(trained, versions):
    """The newest version is the challenger; there is no champion."""
    assert aliases(trained.tracking, versions) == {
        "champion": None,
        "challenger": 3,
        "previous": None,
    }


def test_promotion_keeps_the_alias_of_the_champion_before(trained, versions):
    """The replaced champion has the alias `previous`."""
    registry.promote(trained.tracking, versions, 1)
    change = registry.promote(trained.tracking, versions, 3)

    assert change == registry.Change(versions, 3, 1)
    assert aliases(trained.tracking, versions) == {
        "champion": 3,
        "challenger": 3,
        "previous": 1,
    }


def test_promoting_the_champion_again_changes_nothing(trained, versions):
    """A promotion that is repeated after a crash keeps the alias `previous`."""
    registry.promote(trained.tracking, versions, 1)
    registry.promote(trained.tracking, versions, 2)

    change = registry.promote(trained.tracking, versions, 2)

    assert change == registry.Change(versions, 2, 1)
    assert aliases(trained.tracking, versions)["previous"] == 1


def test_second_rollback_undoes_the_first(trained, versions):
    """A rollback swaps champion and previous champion."""
    registry.promote(trained.tracking, versions, 1)
    registry.promote(trained.tracking, versions, 2)

    first = registry.rollback(trained.tracking, versions)
    second = registry.rollback(trained.tracking, versions)

    assert (first.champion, first.previous) == (1, 2)
    assert (second.champion, second.previous) == (2, 1)


def test_rollback_of_the_first_champion_is_refused(trained, versions):
    """The message says that there is no version before it."""
    registry.promote(trained.tracking, versions, 1)

    with pytest.raises(NothingBefore, match="version 1 was the first"):
        registry.rollback(trained.tracking, versions)


def test_promotion_of_an_unknown_version_changes_no_alias(trained, versions):
    """It is refused, and the champion stays."""
    registry.promote(trained.tracking, versions, 1)

    with pytest.raises(UnknownModel, match="no version '9'"):
        registry.promote(trained.tracking, versions, 9)

    assert aliases(trained.tracking, versions)["champion"] == 1


def test_refusal_is_a_tag_of_the_version(trained, versions):
    """The version has the reason, and the champion stays."""
    verdict = Verdict(False, "not better")

    decision = decide(trained.tracking, versions, 2, verdict, champion=None)

    version = trained.tracking.version(versions, "2")
    assert decision == (verdict, None)
    assert version.tags["validation_status"] == "rejected"
    assert version.tags["gate.reason"] == "not better"


def test_challenger_is_promoted_over_the_champion_it_was_compared_with(trained, versions):
    """The champion of the comparison is still in service, so the challenger replaces it."""
    registry.promote(trained.tracking, versions, 1)

    verdict, change = decide(trained.tracking, versions, 2, Verdict(True, "better"), champion=1)

    assert verdict == Verdict(True, "better")
    assert change == registry.Change(versions, 2, 1)
    assert trained.tracking.version(versions, "2").tags["validation_status"] == "approved"


@pytest.mark.parametrize(
    ("compared", "serving", "change_text"),
    [(1, 2, "from v1 to v2"), (None, 1, "from none to v1"), (1, None, "from v1 to none")],
)
def test_challenger_is_not_promoted_over_another_champion(
    trained, versions, compared, serving, change_text
):
    """The version was not compared with the champion in service, so it stays challenger."""
    if serving is not None:
        registry.promote(trained.tracking, versions, serving)

    verdict, change = decide(
        trained.tracking, versions, 3, Verdict(True, "better"), champion=compared
    )

    version = trained.tracking.version(versions, "3")
    assert change is None
    assert verdict == Verdict(False, f"the champion changed meanwhile {change_text}: train again")
    assert version.tags["validation_status"] == "rejected"
    assert version.tags["gate.reason"] == verdict.reason
    assert aliases(trained.tracking, versions)["champion"] == serving
