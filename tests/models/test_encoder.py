"""Encoder folders: whole, offline, fingerprinted, and honest about what they are."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
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


def test_fingerprint_follows_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = copy("minilm", tmp_path / "own")
    first = fingerprint(own)
    assert first == fingerprint(encoder_dir("minilm"))
    (own / "README.md").write_text("notes do not change an encoder")
    assert fingerprint(own) == first

    monkeypatch.setattr(files, "sha256_file", lambda _: pytest.fail("hashed again"))
    assert fingerprint(own) == first
    monkeypatch.undo()
    config = own / "config.json"
    config.write_text(config.read_text().replace('"gelu"', '"relu"'))
    assert fingerprint(own) != first
    assert not list(own.glob("*stamp*")), "nothing is written into other people's folders"


def test_an_encoder_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = copy("minilm", tmp_path / "own")
    assert encoder_dir(own) == own
    assert encoder_dir(str(own)) == own
    monkeypatch.chdir(tmp_path)
    assert encoder_dir("own") == own
    card = encoder_card(own)
    assert card.sha256 == fingerprint(own)
    assert (card.embedding_parameters, card.prefix) == (encoder_card("minilm").embedding_parameters, "")
    assert card.parameters == encoder_card("minilm").parameters

    (own / "tokenizer.json").unlink()
    with pytest.raises(EncoderError, match=r"own: .*tokenizer\.json"):
        encoder_dir(own)
    with pytest.raises(EncoderError, match=r"miniml: .*'minilm'"):
        encoder_dir("miniml")


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache with the packages and nothing else."""
    (tmp_path / "packages").symlink_to(packages.cache_dir() / "packages")
    monkeypatch.setenv("SOI_CACHE", str(tmp_path))
    yield tmp_path
    shutil.rmtree(tmp_path / "encoders")


def test_a_damaged_folder_of_the_cache_is_made_again(fresh_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = encoder_dir("minilm")
    assert folder.parent == fresh_cache / "encoders"
    good = fingerprint(folder)
    for name, damage in {
        "model.safetensors": lambda body: body[:-5] + bytes([body[-5] ^ 1]) + body[-4:],
        "config.json": None,
    }.items():
        path = folder / name
        body = path.read_bytes() if path.exists() else b""
        path.unlink(missing_ok=True)
        if damage is not None:
            path.write_bytes(damage(body))
        caplog.clear()
        assert fingerprint(encoder_dir("minilm")) == good
        assert f"{path}: missing or changed since it was written; making the encoder again" in caplog.text
        assert folder.with_name(f"{folder.name}.damaged").is_dir()


def test_disk_full(fresh_cache: Path) -> None:
    """A limit on the size of files stands for a full disk; nothing half-written stays."""
    script = """
        import resource
        from soi_lib.models.encoder import encoder_dir
        from soi_lib.errors import SoiError
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
        try:
            encoder_dir("minilm")
        except SoiError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True, timeout=300
    )
    (line,) = done.stdout.splitlines()
    assert "too large" in line
    assert "free some space" in line
    assert [path.suffix for path in (fresh_cache / "encoders").iterdir()] == [".lock"]
