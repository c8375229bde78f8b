"""`python -m fba_app`, as far as it comes without a database."""

import pytest

from fba_app import __main__
from fba_app.settings import ConfigurationError


def test_without_a_database_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["init"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("PostgreSQL is unavailable: ")
    assert "db-pass" not in error


def test_a_wrong_setting_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise ConfigurationError("DB_PORT: must be a number")

    monkeypatch.setattr(__main__, "get_settings", refuse)
    assert __main__.main(["init"]) == 1
    assert capsys.readouterr().err == "DB_PORT: must be a number\n"


@pytest.mark.parametrize("arguments", [[], ["unknown"]])
def test_other_commands_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        __main__.main(arguments)
    assert caught.value.code == 2
