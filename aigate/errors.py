"""The one exception tree of aigate.

    GateError
    ├── ClientError      the caller can fix it: bad input, unknown model, no key, limits, money
    ├── ProviderError    the provider failed, or answered what cannot be used
    └── GatewayError     ours: an outage or a bug

Every error that a caller may see is one of these. Foreign exceptions are mapped where they enter and nowhere else.
A message is safe to show: it names the field and the problem, never a secret. How an error looks on the wire
belongs to the dialects.
"""

from __future__ import annotations


class GateError(Exception):
    """Base: `status` HTTP status, `type` the REF word, `code` the stable string, `param` the offending field (or None),
    `origin` gateway | provider | budget | rate_limit, `retryable`, `retry_after_s`, and `extra` wire fields (provider, attempts, …)."""

    origin = "gateway"
    status = 500
    type = "server_error"
    code = "internal_error"
    retryable = False

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        type: str | None = None,
        code: str | None = None,
        param: str | None = None,
        **extra: object,
    ):
        super().__init__(message)
        self.message = message
        if status is not None:
            self.status = status
        if type is not None:
            self.type = type
        if code is not None:
            self.code = code
        self.param = param
        self.retryable = bool(extra.pop("retryable", self.retryable))
        self.origin = str(extra.pop("origin", self.origin))
        self.retry_after_s: float | None = extra.pop("retry_after_s", None)  # type: ignore[assignment]
        self.extra = extra


class ClientError(GateError):
    """The request is wrong and only its sender can mend it."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class ProviderError(GateError):
    """The provider failed. `provider_status` is its own HTTP status (0: no reply); `kind` says how:
    refused | reset | timeout | rate_limited | overloaded | auth | rejected | bad_reply | cut | error."""

    origin = "provider"
    status = 502
    type = "provider_error"
    code = "provider_unavailable"
    retryable = True
    is_stale = False  # a kept connection had gone before a byte of the reply came: the same attempt may be sent once more

    def __init__(self, message: str, *, kind: str = "error", provider_status: int = 0, **fields: object):
        super().__init__(message, **fields)  # type: ignore[arg-type]
        self.kind = kind
        self.provider_status = provider_status


class GatewayError(GateError):
    """Ours. Whether a retry helps depends on which: a full journal may drain, a bug will not go away."""


def unauthorized(message: str) -> ClientError:
    return ClientError(message, status=401, type="authentication_error", code="invalid_key")


def model_not_found(message: str) -> ClientError:
    return ClientError(message, status=404, type="model_not_found", code="unknown_model", param="model")


def ledger_unavailable(message: str) -> GatewayError:
    return GatewayError(message, status=503, code="ledger_unavailable", retryable=True, retry_after_s=1)
