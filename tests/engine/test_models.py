from pathlib import Path

import pytest

from v2td.config import EngineSettings
from v2td.engine import find_model, models_folder, verified_model, write_manifest
from v2td.errors import ConfigError


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STATE_DIRECTORY", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


def model_at(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"")
    return folder


def test_the_demo_model_is_brought_along(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = find_model(EngineSettings(model="demo"))
    assert (folder / "model.bin").is_file()
    assert tmp_path in folder.parents


def test_a_name_is_looked_up_in_the_models_folder(tmp_path: Path) -> None:
    folder = model_at(tmp_path / "large-v3")
    assert find_model(EngineSettings(model="large-v3", models_dir=tmp_path)) == folder


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = model_at(tmp_path / "elsewhere" / "mine")
    assert find_model(EngineSettings(model=str(folder), models_dir=tmp_path)) == folder


def test_a_missing_model_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"engine\.model = base: no model\.bin in .*`v2td model pull base`") as caught:
        find_model(EngineSettings(model="base", models_dir=tmp_path))
    assert caught.value.field == "engine.model"


def test_a_path_without_a_model_says_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give the folder of a CTranslate2 model"):
        find_model(EngineSettings(model=str(tmp_path)))


def test_the_models_folder_is_the_setting_then_systemds_then_the_users(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert models_folder(EngineSettings()) == tmp_path / "home/.cache/v2td/models"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert models_folder(EngineSettings()) == tmp_path / "cache/v2td/models"
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}/state:{tmp_path}/other")
    assert models_folder(EngineSettings()) == tmp_path / "state/models"
    assert models_folder(EngineSettings(models_dir=tmp_path)) == tmp_path


def test_without_a_tokenizer_no_hub_is_asked(tmp_path: Path) -> None:
    folder = model_at(tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"engine\.model = .*: no tokenizer\.json in .*, and no hub is asked for it"):
        verified_model(EngineSettings(model=str(folder)))


def test_a_model_is_compared_with_its_manifest(tmp_path: Path) -> None:
    folder = model_at(tmp_path / "mine")
    (folder / "tokenizer.json").write_text("{}")
    settings = EngineSettings(model=str(folder))
    assert verified_model(settings) == folder  # it has none
    write_manifest(folder)
    assert verified_model(settings) == folder
    (folder / "model.bin").write_bytes(b"other")
    with pytest.raises(ConfigError, match=r"model\.bin is not the file that was listed"):
        verified_model(settings)
    elsewhere = EngineSettings(model=str(folder), model_manifest=tmp_path / "sums")
    with pytest.raises(ConfigError, match="No such file or directory: make it in the model's folder"):
        verified_model(elsewhere)
