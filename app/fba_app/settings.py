"""Settings of every process: server, worker, beat and migration.

They come from the environment and, below it, from the dotenv file that `FBA_ENV_FILE` names.
"""

import os
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import Field, FilePath, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(min_length=1)]

JWT_SECRET_KEY_LENGTH = 32
PLACEHOLDERS = ("change", "default", "example", "password", "placeholder", "secret")


class ConfigurationError(Exception):
    """A setting is missing or has a value that is not allowed. Never holds a value, as it may be a secret."""


class Settings(BaseSettings):
    """What the application needs to know of the place it runs in.

    A field's environment variable is its name in capitals. No secret has a default.
    """

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True)

    environment: Literal["development", "production"] = "production"

    db_host: Name
    db_port: Port = 5432
    db_user: Name
    db_password: SecretStr
    db_database: Name

    redis_host: Name
    redis_port: Port = 6379
    redis_password: SecretStr
    redis_database: int = Field(default=0, ge=0)

    celery_broker: Literal["rabbitmq"] = "rabbitmq"
    rabbitmq_host: Name
    rabbitmq_port: Port = 5672
    rabbitmq_username: Name
    rabbitmq_password: SecretStr
    rabbitmq_vhost: Name = "/"

    tls_ca_file: FilePath | None = None
    """When set, all three connections use TLS and verify certificate and host name against this authority."""
    tls_cert_file: FilePath | None = None
    """The certificate that all three connections show, if they shall."""
    tls_key_file: FilePath | None = None
    """Its key. Both files may be replaced at any time: every new connection reads them."""

    timezone: str = "UTC"
    """The time zone of schedules, reports and pages."""

    jwt_secret_key: SecretStr
    jwt_algorithm: Literal["HS256"] = "HS256"

    admin_username: Name = "admin"
    admin_password: SecretStr | None = None
    """Of the first user, whom `python -m fba_app init` makes while there is none."""
    access_token_lifetime: int = Field(default=900, ge=60)
    """Seconds. A session can be ended at any time all the same."""
    session_lifetime: int = Field(default=7 * 86400, ge=300)
    """Seconds that a session lasts without being refreshed or used."""
    login_attempts_per_account: int = Field(default=10, ge=1)
    login_attempts_per_address: int = Field(default=100, ge=1)
    login_window: int = Field(default=900, ge=1)
    """Seconds in which so many failed attempts are allowed."""

    smtp_host: Name | None = None
    """Without it, the task `email` is refused."""
    smtp_port: Port = 587
    smtp_security: Literal["none", "starttls", "tls"] = "starttls"
    smtp_ca_file: FilePath | None = None
    """The authority that signed the mail server's certificate; by default the system's."""
    smtp_username: Name | None = None
    smtp_password: SecretStr | None = None
    smtp_from: Name = "fba.stack <noreply@localhost>"
    smtp_timeout: int = Field(default=30, ge=1)
    """Seconds for each step of the conversation."""

    storage_backend: Literal["volume", "postgres", "s3"] = "volume"
    storage_dir: Path = Path("upload")
    """Of the backend `volume`."""
    storage_accel_prefix: str | None = None
    """A location of nginx that serves `storage_dir`, such as `/_upload/`; without it, the server sends files itself."""
    s3_bucket: Name | None = None
    s3_prefix: str = ""
    s3_region: Name = "us-east-1"
    s3_endpoint: Name | None = None
    """A URL, of storage that is not Amazon's."""
    s3_access_key_id: SecretStr | None = None
    s3_secret_access_key: SecretStr | None = None

    request_max_size: int = Field(default=5 * 2**20, ge=1024)
    """Bytes of a request's body, but for an upload's."""
    upload_max_size: int = Field(default=120 * 2**20, ge=1024)
    """Bytes of an uploaded file."""

    user_quota: int = Field(default=2 * 2**30, ge=1024)
    """Bytes that the files of one user may have together."""

    task_retention_days: int = Field(default=30, ge=1)
    file_retention_days: int = Field(default=30, ge=1)
    audit_retention_days: int = Field(default=365, ge=1)

    run_task_enabled: bool = True
    task_time_limit: int = Field(default=600, gt=30)
    """Seconds after which a task is ended; half a minute before, it is told to clean up."""
    run_task_max_duration: int | None = Field(default=None, ge=0)
    """Seconds. Must leave a task more than that half minute. By default 300, or what the time limit leaves."""

    run_task_max_open: int = Field(default=1000, ge=1)
    """Tasks of `/run-task/` that may wait or run at once: it has no password."""

    @property
    def soft_time_limit(self) -> int:
        """Seconds after which a task is told to clean up."""
        return self.task_time_limit - 30

    @property
    def longest_sleep(self) -> int:
        """Seconds that `/run-task/` and the kind `sleep` may wait."""
        if self.run_task_max_duration is None:
            return min(300, self.soft_time_limit - 1)
        return self.run_task_max_duration

    def tls_files(self, authority: str, certificate: str, key: str) -> dict[str, str]:
        """The files of TLS that there are, by the names that a library has for them; none if it is not used."""
        files = {authority: self.tls_ca_file, certificate: self.tls_cert_file, key: self.tls_key_file}
        return {name: str(path) for name, path in files.items() if path is not None}

    @model_validator(mode="after")
    def _certificate_is_complete(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("TLS_CERT_FILE and TLS_KEY_FILE belong together: both must be set, or neither")
        if self.tls_cert_file is not None and self.tls_ca_file is None:
            raise ValueError("TLS_CERT_FILE and TLS_KEY_FILE need TLS_CA_FILE: no connection uses TLS without it")
        return self

    @model_validator(mode="after")
    def _fits_the_time_limit(self) -> Self:
        if self.longest_sleep >= self.soft_time_limit:
            raise ValueError(
                f"RUN_TASK_MAX_DURATION must be less than {self.soft_time_limit}, TASK_TIME_LIMIT less 30 seconds"
            )
        return self

    @model_validator(mode="after")
    def _s3_is_complete(self) -> Self:
        for name in ("s3_bucket", "s3_access_key_id", "s3_secret_access_key"):
            if self.storage_backend == "s3" and getattr(self, name) is None:
                raise ValueError(f"{name.upper()} is required by STORAGE_BACKEND=s3")
        return self

    @field_validator("timezone")
    @classmethod
    def _known_time_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError("must be a name from the IANA database, such as UTC or Europe/Berlin") from None
        return value

    @field_validator("jwt_secret_key")
    @classmethod
    def _strong_key(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        if info.data.get("environment") == "development":
            return value
        key = value.get_secret_value()
        if len(key) < JWT_SECRET_KEY_LENGTH:
            raise ValueError(f"must have at least {JWT_SECRET_KEY_LENGTH} characters outside development")
        if len(set(key)) < JWT_SECRET_KEY_LENGTH // 4 or any(word in key.lower() for word in PLACEHOLDERS):
            raise ValueError("must be random outside development; this one looks like a placeholder")
        return value


@lru_cache
def get_settings() -> Settings:
    """Read the settings once per process.

    Raises:
        ConfigurationError: lists every setting that is wrong, and what it may be.
    """
    try:
        return Settings(_env_file=_env_file())
    except ValidationError as error:
        # Not chained: the original carries the rejected values.
        raise ConfigurationError(_explain(error)) from None


def _env_file() -> Path:
    named = os.environ.get("FBA_ENV_FILE")
    if named and not os.access(named, os.R_OK):
        # A missing file would otherwise be passed over in silence and surface as a dozen missing settings.
        raise ConfigurationError(f"FBA_ENV_FILE: {named} must be a file that this user can read")
    return Path(named or ".env")


def _explain(error: ValidationError) -> str:
    lines = ["These settings are wrong:"]
    for each in error.errors(include_url=False, include_context=False, include_input=False):
        name = "_".join(str(part) for part in each["loc"]).upper()
        allowed = "is required" if each["type"] == "missing" else each["msg"].removeprefix("Value error, ")
        lines.append(f"  {name}: {allowed}")
    return "\n".join(lines)
