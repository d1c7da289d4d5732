"""The list of faults: complete, and each says what is expected."""

from __future__ import annotations

import pytest

from tests.faults.__main__ import collect, main

NUMBERS = list(range(1, 44))


def test_collect__every_fault__has_a_number_and_an_expectation() -> None:
    faults = [one for one in collect() if one.id]
    assert [one.id for one in faults] == NUMBERS
    assert all(one.name and one.expected for one in faults)


@pytest.mark.parametrize("option", ["--help", "--list"])
def test_main__help_and_list__name_every_fault(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if option == "--help":
        with pytest.raises(SystemExit):
            main([option])
    else:
        assert main([option]) == 0
    lines = capsys.readouterr().out.splitlines()
    for one in collect():
        assert any(line.startswith(f"{one.id:>2} ") and one.name in line for line in lines), one


def test_main__a_fault_that_cannot_run_here__is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    impossible = [one for one in collect() if one.not_here]
    chosen = impossible[0].id if impossible else 44
    with pytest.raises(SystemExit):
        main(["--only", str(chosen)])
    assert (impossible[0].not_here if impossible else "unknown") in capsys.readouterr().err
