"""Encoder folders: fingerprints, cards, damage."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from soi_lib import files, packages
from soi_lib.errors import EncoderError
from soi_lib.models.encoder import encoder_card, encoder_dir, fingerprint

pytestmark = pytest.mark.usefixtures("wheels")


def copy(name: str, folder: Path) -> Path:
    folder.mkdir()
    for file in encoder_dir(name).iterdir():
        if file.suffix == ".safetensors":
            (folder / file.name).symlink_to(file)
        else:
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_fingerprint_depends_on_files_that_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = copy("minilm", tmp_path / "own")
    first = fingerprint(own)
    assert first == fingerprint(encoder_dir("minilm"))
    (own / "README.md").write_text("notes")
    assert fingerprint(own) == first

    monkeypatch.setattr(files, "sha256_file", lambda _: pytest.fail("hashed again"))
    assert fingerprint(own) == first
    monkeypatch.undo()
    config = own / "config.json"
    config.write_text(config.read_text().replace('"gelu"', '"relu"'))
    assert fingerprint(own) != first
    assert not list(own.glob("*stamp*"))  # nothing is written to a user's folder


def test_a_user_folder_is_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = copy("minilm", tmp_path / "own")
    assert encoder_dir(own) == encoder_dir(str(own)) == own
    monkeypatch.chdir(tmp_path)
    assert encoder_dir("own") == own
    card, expected = encoder_card(own), encoder_card("minilm")
    assert (card.sha256, card.prefix) == (fingerprint(own), "")
    assert (card.parameters, card.embedding_parameters) == (expected.parameters, expected.embedding_parameters)

    (own / "tokenizer.json").unlink()
    with pytest.raises(EncoderError, match=r"own: .*tokenizer\.json"):
        encoder_dir(own)
    with pytest.raises(EncoderError, match=r"miniml: .*'minilm'"):
        encoder_dir("miniml")


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache that contains only the packages."""
    (tmp_path / "packages").symlink_to(packages.cache_dir() / "packages")
    monkeypatch.setenv("SOI_CACHE", str(tmp_path))
    yield tmp_path
    shutil.rmtree(tmp_path / "encoders")


def test_a_damaged_folder_of_the_cache_is_made_again(fresh_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = encoder_dir("minilm")
    assert folder.parent == fresh_cache / "encoders"
    good = fingerprint(folder)
    weights = folder / "model.safetensors"
    body = weights.read_bytes()
    weights.write_bytes(body[:-5] + bytes([body[-5] ^ 1]) + body[-4:])
    assert fingerprint(encoder_dir("minilm")) == good
    assert f"{weights}: missing or changed" in caplog.text
    (folder / "config.json").unlink()
    assert fingerprint(encoder_dir("minilm")) == good
    assert folder.with_name(f"{folder.name}.damaged").is_dir()
