"""The vault: what is sealed opens only as it was sealed, and rotation never loses anything."""

import base64
import os

import pytest

from aigate.keeper.vault import Vault, VaultError


@pytest.fixture
def vault(tmp_path):
    return Vault(tmp_path / "provider.key")


def test_what_is_sealed_opens_again(vault):
    sealed = vault.seal(b"sk-secret", b"here")
    assert b"sk-secret" not in sealed and vault.open(sealed, b"here") == b"sk-secret"
    assert vault.seal(b"sk-secret", b"here") != sealed


def test_the_key_file_is_for_its_owner_only(vault, tmp_path):
    vault.seal(b"x", b"")
    assert (tmp_path / "provider.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["provider.key"]


def test_it_opens_nowhere_else_and_not_when_changed(vault):
    sealed = vault.seal(b"sk-secret", b"here")
    with pytest.raises(VaultError):
        vault.open(sealed, b"there")
    for at in range(len(sealed)):
        with pytest.raises(VaultError):
            vault.open(sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :], b"here")
    for length in range(len(sealed)):
        with pytest.raises(VaultError):
            vault.open(sealed[:length], b"here")


def test_after_a_rotation_old_and_new_open_and_the_first_key_is_no_longer_needed(vault, tmp_path):
    old = vault.seal(b"sk-secret", b"here")
    vault.add_key()
    new = vault.rewrap(old, b"here")
    assert vault.open(old, b"here") == vault.open(new, b"here") == b"sk-secret"
    path = tmp_path / "provider.key"
    path.write_text(path.read_text().split()[0])
    assert vault.open(new, b"here") == b"sk-secret"
    with pytest.raises(VaultError, match="provider.key: the key that sealed this is not there"):
        vault.open(old, b"here")


def test_keys_may_be_a_setting(tmp_path):
    first, second = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))
    sealed = Vault(tmp_path / "no", first).seal(b"s", b"")
    both = Vault(tmp_path / "no", f"{second}, {first}")
    assert Vault(tmp_path / "no", second).open(both.rewrap(sealed, b""), b"") == b"s"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "short", "ä" * 44, base64.b64encode(b"x" * 31).decode(), "!" * 44])
def test_keys_that_are_none_are_told_of_without_being_shown(tmp_path, text):
    path = tmp_path / "provider.key"
    path.write_text(text)
    with pytest.raises(VaultError) as caught:
        Vault(path).seal(b"s", b"")
    assert "provider.key" in caught.value.message and (not text or text not in caught.value.message)
