"""Which storage the settings give."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fba_app.files import storage
from fba_app.files.storage.objects import FolderStorage, ObjectStorage
from fba_app.files.storage.postgres import PostgresStorage
from fba_app.settings import ConfigurationError, get_settings

S3 = {
    "STORAGE_BACKEND": "s3",
    "S3_BUCKET": "files",
    "S3_ACCESS_KEY_ID": "someone",
    "S3_SECRET_ACCESS_KEY": "not-to-be-shown",
}


@pytest.fixture(autouse=True)
def _fresh_settings() -> Iterator[None]:
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def use(monkeypatch: pytest.MonkeyPatch, **values: str) -> storage.Storage:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return storage.get_storage()


def test_a_folder_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    assert isinstance(use(monkeypatch, STORAGE_DIR=str(folder)), FolderStorage)
    assert folder.is_dir()


def test_one_storage_serves_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert use(monkeypatch, STORAGE_DIR=str(tmp_path)) is storage.get_storage()


def test_a_folder_that_cannot_be_made_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="STORAGE_DIR"):
        use(monkeypatch, STORAGE_DIR=str(tmp_path / "file" / "folder"))


def test_a_folder_that_is_a_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="STORAGE_DIR"):
        use(monkeypatch, STORAGE_DIR=str(tmp_path / "file"))


def test_postgres_needs_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(use(monkeypatch, STORAGE_BACKEND="postgres"), PostgresStorage)


def test_postgres_leaves_the_folder_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "upload"
    use(monkeypatch, STORAGE_BACKEND="postgres", STORAGE_DIR=str(folder))
    assert not folder.exists()


def test_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    found = use(monkeypatch, **S3)
    assert isinstance(found, ObjectStorage)
    assert not isinstance(found, FolderStorage)


@pytest.mark.parametrize("missing", ["S3_BUCKET", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"])
def test_s3_says_which_setting_is_missing(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{missing} is required by STORAGE_BACKEND=s3") as raised:
        use(monkeypatch, **{name: value for name, value in S3.items() if name != missing})
    assert "not-to-be-shown" not in str(raised.value)
