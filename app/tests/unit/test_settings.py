"""What the settings accept and, above all, refuse."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from fba_app.settings import ConfigurationError, Settings, get_settings

SECRETS = ["DB_PASSWORD", "REDIS_PASSWORD", "RABBITMQ_PASSWORD", "JWT_SECRET_KEY"]


def read() -> Settings:
    return get_settings.__wrapped__()


def test_the_file_is_read_and_the_environment_wins(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read().db_user == "app"
    monkeypatch.setenv("DB_USER", "other")
    assert read().db_user == "other"


def test_a_named_file_that_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FBA_ENV_FILE", "/nowhere/app.env")
    with pytest.raises(ConfigurationError, match="FBA_ENV_FILE: /nowhere"):
        read()


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("absent", [True, False])
def test_no_secret_has_a_default(secret: str, absent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if absent:
        monkeypatch.delenv(secret)
    else:
        monkeypatch.setenv(secret, "")
    with pytest.raises(ConfigurationError, match=f"{secret}: is required"):
        read()


@pytest.mark.parametrize(
    "key",
    ["q8Zr2mVx4Lk9TnB7wYc3HsD6fGj1PaU", "changethis-q8Zr2mVx4Lk9TnB7wYc3HsD6", "abcabcabc" * 4],
    ids=["31 characters", "placeholder", "repetition"],
)
def test_a_weak_key_is_for_development_only(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET_KEY", key)
    with pytest.raises(ConfigurationError, match="JWT_SECRET_KEY: must") as refusal:
        read()
    assert key not in str(refusal.value)

    monkeypatch.setenv("ENVIRONMENT", "development")
    assert read().jwt_secret_key.get_secret_value() == key


def test_an_unknown_environment_does_not_weaken_the_key_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVIRONMENT", "staging")
    monkeypatch.setenv("JWT_SECRET_KEY", "short")
    with pytest.raises(ConfigurationError) as refusal:
        read()
    assert "ENVIRONMENT: Input should be 'development' or 'production'" in str(refusal.value)
    assert "JWT_SECRET_KEY: must have at least 32" in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DB_PORT", "65536"),
        ("REDIS_PORT", "many"),
        ("REDIS_DATABASE", "-1"),
        ("CELERY_BROKER", "redis"),
        ("JWT_ALGORITHM", "none"),
        ("TIMEZONE", "Mars/Olympus"),
        ("TIMEZONE", "Europe"),
        ("TIMEZONE", "../../etc/passwd"),
        ("TLS_CA_FILE", "/nowhere/ca.crt"),
        ("TLS_CERT_FILE", "/nowhere/app.crt"),
        ("TLS_KEY_FILE", "/nowhere/app.key"),
        ("RUN_TASK_ENABLED", "perhaps"),
        ("RUN_TASK_MAX_DURATION", "-1"),
        ("TASK_TIME_LIMIT", "30"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_by_name(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=rf"\n  {name}: \w"):
        read()


def test_a_task_must_fit_its_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASK_TIME_LIMIT", "100")
    monkeypatch.setenv("RUN_TASK_MAX_DURATION", "70")
    with pytest.raises(ConfigurationError, match="RUN_TASK_MAX_DURATION must be less than 70"):
        read()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["CA", "CERT"], "TLS_CERT_FILE and TLS_KEY_FILE belong together"),
        (["CA", "KEY"], "TLS_CERT_FILE and TLS_KEY_FILE belong together"),
        (["CERT", "KEY"], "TLS_CERT_FILE and TLS_KEY_FILE need TLS_CA_FILE"),
    ],
)
def test_a_certificate_needs_its_key_and_an_authority(
    names: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in names:
        (tmp_path / name).touch()
        monkeypatch.setenv(f"TLS_{name}_FILE", str(tmp_path / name))
    with pytest.raises(ConfigurationError, match=message):
        read()


def test_libraries_get_the_files_by_their_own_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read().tls_files("ca", "certificate", "key") == {}
    path = str(tmp_path / "file")
    Path(path).touch()
    monkeypatch.setenv("TLS_CA_FILE", path)
    assert read().tls_files("ca", "certificate", "key") == {"ca": path}
    monkeypatch.setenv("TLS_CERT_FILE", path)
    monkeypatch.setenv("TLS_KEY_FILE", path)
    assert read().tls_files("ca", "certificate", "key") == {"ca": path, "certificate": path, "key": path}


def test_all_errors_come_at_once_and_no_secret_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PORT", "0")
    monkeypatch.delenv("REDIS_HOST")
    with pytest.raises(ConfigurationError) as refusal:
        read()
    message = str(refusal.value)
    assert "DB_PORT" in message
    assert "REDIS_HOST" in message
    assert not any(secret in message for secret in ("db-pass", "redis-pass", "rabbit-pass", "q8Zr2mVx"))
    # The chained validation error would hold them.
    assert refusal.value.__suppress_context__


def test_even_the_plain_validation_error_hides_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET_KEY", "weak-but-mine")
    with pytest.raises(ValidationError) as refusal:
        Settings()
    assert "weak-but-mine" not in str(refusal.value)


def test_a_printed_setting_hides_its_secrets() -> None:
    assert not any(secret in repr(read()) for secret in ("db-pass", "redis-pass", "rabbit-pass", "q8Zr2mVx"))
