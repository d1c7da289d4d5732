"""The error hierarchy. Pure: no seam is replaced."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from doorstep import errors


def every_class(root: type[errors.DoorstepError]) -> Iterator[type[errors.DoorstepError]]:
    """The shared classes below `root`; a service may have more of its own."""
    for child in root.__subclasses__():
        if child.__module__ in (errors.__name__, "doorstep.conflict_errors"):
            yield child
            yield from every_class(child)


def test_errors__tree_in_the_docstring__names_every_class() -> None:
    drawn = errors.__doc__ or ""
    missing = [c.__name__ for c in every_class(errors.DoorstepError) if c.__name__ not in drawn]
    assert missing == []


def test_errors__every_class__can_be_imported_from_errors() -> None:
    classes = list(every_class(errors.DoorstepError))
    assert errors.WrongPin in classes
    assert [c.__name__ for c in classes if getattr(errors, c.__name__, None) is not c] == []


def test_errors__without_a_message__the_docstring_is_the_message() -> None:
    assert str(errors.BadLink()) == "This link is not valid."
    assert errors.BadLink().title == "This link is not valid"


def test_illegal_transition__members__hold_the_state_and_the_allowed_commands() -> None:
    error = errors.IllegalTransition("o-1", "deliver", "assigned", ["pick_up", "cancel"])
    assert error.members() == {"current_state": "assigned", "allowed": ["pick_up", "cancel"]}
    assert "allowed: pick_up, cancel" in str(error)


@pytest.mark.parametrize(
    "cls", list(every_class(errors.DoorstepError)), ids=lambda cls: str(cls.__name__)
)
def test_errors__retriable__only_unavailable_and_too_many_requests(
    cls: type[errors.DoorstepError],
) -> None:
    assert cls.retriable == (cls.status in (429, 503))
