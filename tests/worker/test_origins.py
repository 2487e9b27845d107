"""No text of a provider's that a client sees holds a credential of ours."""

from __future__ import annotations

from aigate.core.target import Provider
from aigate.errors import ProviderError
from aigate.worker.origins import Origins

SECRET = "rawsecretkey12345"


def test_every_text_of_a_refusal_is_redacted() -> None:
    provider = Provider(name="p", base_url="http://127.0.0.1:1/v1", credential=SECRET)
    error = ProviderError(f"bad key {SECRET}", param=SECRET, provider_code=f"key_{SECRET}", details={"error_code": 7})
    Origins([provider]).clean(error, provider)
    assert (error.message, error.param) == ("bad key [redacted]", "[redacted]")
    assert error.extra == {"provider_code": "key_[redacted]", "details": {"error_code": 7}}


def test_a_callers_own_credential_is_redacted_too() -> None:
    operator = Provider(name="p", base_url="http://127.0.0.1:1/v1", credential=SECRET)
    own = Provider(name="p", base_url="http://127.0.0.1:1/v1", credential="ownsecretkey6789", credential_id="pk_1")
    error = ProviderError("bad key ownsecretkey6789")
    Origins([operator]).clean(error, own)
    assert error.message == "bad key [redacted]"
