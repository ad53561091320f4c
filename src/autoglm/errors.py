"""The error tree, and the one table from a stable code to exit status, HTTP status and gRPC status.

AutoGLMError
├── ConfigError              ├── ModelError ── UnsupportedOperatorError, ModelSecurityError
├── InputError               ├── AccuracyError      ├── LimitError
├── BundleError              ├── CommunicatorError
├── BackendError ── BackendNotFoundError, BackendUnavailableError, CompileError, ExecutionError
└── ServeError ── InvalidRequestError, UnauthenticatedError, ForbiddenError, ModelNotServedError,
                 TooLargeError, UnsupportedTypeError, OverloadedError, CancelledRequestError,
                 NotOfferedError, DrainingError, DeadlineError
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from autoglm.messages import fill, tr


@dataclass(frozen=True, slots=True)
class Row:
    """What one error code is on each wire. Exit statuses follow sysexits.h; 0, 1, 2 are `check`'s
    verdicts.
    """

    exit: int
    http: int
    grpc: str


TABLE: dict[str, Row] = {
    "internal": Row(70, 500, "INTERNAL"),
    "usage": Row(64, 400, "INVALID_ARGUMENT"),
    "config": Row(78, 400, "INVALID_ARGUMENT"),
    "model": Row(65, 422, "INVALID_ARGUMENT"),
    "model-security": Row(77, 403, "PERMISSION_DENIED"),
    "unsupported-operator": Row(2, 422, "UNIMPLEMENTED"),
    "input": Row(65, 400, "INVALID_ARGUMENT"),
    "file": Row(66, 404, "NOT_FOUND"),
    "accuracy": Row(3, 500, "FAILED_PRECONDITION"),
    "limit": Row(75, 503, "RESOURCE_EXHAUSTED"),
    "bundle": Row(65, 500, "DATA_LOSS"),
    "write": Row(73, 507, "RESOURCE_EXHAUSTED"),
    "backend": Row(69, 500, "INTERNAL"),
    "backend-not-found": Row(69, 404, "NOT_FOUND"),
    "backend-unavailable": Row(69, 503, "UNAVAILABLE"),
    "compile": Row(70, 500, "INTERNAL"),
    "execution": Row(70, 500, "INTERNAL"),
    "communicator": Row(70, 500, "UNAVAILABLE"),
    "serve": Row(70, 500, "INTERNAL"),
    "invalid-request": Row(64, 400, "INVALID_ARGUMENT"),
    "unauthenticated": Row(77, 401, "UNAUTHENTICATED"),
    "forbidden": Row(77, 403, "PERMISSION_DENIED"),
    "model-not-served": Row(66, 404, "NOT_FOUND"),
    "too-large": Row(64, 413, "RESOURCE_EXHAUSTED"),
    "unsupported-type": Row(64, 415, "UNIMPLEMENTED"),
    "overloaded": Row(75, 429, "RESOURCE_EXHAUSTED"),
    "cancelled": Row(75, 499, "CANCELLED"),
    "not-offered": Row(69, 501, "UNIMPLEMENTED"),
    "draining": Row(75, 503, "UNAVAILABLE"),
    "deadline": Row(75, 504, "DEADLINE_EXCEEDED"),
}


class AutoGLMError(Exception):
    """Something the user can act on: what was expected, what was found, where, what to do next.

    `template` and `hint` are texts with named fields, filled from `facts`; the facts stay
    readable as attributes of `error.facts`, so that no caller has to parse the message.
    """

    code: ClassVar[str] = "internal"

    def __init__(self, template: str, /, *, hint: str = "", **facts: object) -> None:
        super().__init__(fill(template, facts))
        self.template = template
        self.hint_template = hint
        self.facts = facts

    @property
    def row(self) -> Row:
        """This error's line in the one table."""
        return TABLE[self.code]

    @property
    def hint(self) -> str:
        """What to do next, in the language in force; empty where there is nothing to add."""
        return tr(self.hint_template, **self.facts)

    def localized(self) -> str:
        """The message in the language in force."""
        return tr(self.template, **self.facts)


class ConfigError(AutoGLMError):
    """A key or value of the adaptation config is wrong."""

    code = "config"


class ModelError(AutoGLMError):
    """The model file is broken, or says what cannot be."""

    code = "model"


class ModelSecurityError(ModelError):
    """The model reaches outside its folder, or would run code."""

    code = "model-security"


class UnsupportedOperatorError(ModelError):
    """No allowed backend takes some node; `facts["rejected"]` maps node -> reasons."""

    code = "unsupported-operator"


class InputError(AutoGLMError):
    """A tensor given to `run` does not fit the model, or its file cannot be read."""

    code = "input"


class FileMissingError(AutoGLMError):
    """A file or folder that was named is not there."""

    code = "file"


class AccuracyError(AutoGLMError):
    """The compiled model's answers differ from fp32 by more than is allowed."""

    code = "accuracy"


class LimitError(AutoGLMError):
    """A time or memory limit was reached."""

    code = "limit"


class BundleError(AutoGLMError):
    """A bundle is damaged, incomplete, or of another format."""

    code = "bundle"


class WriteError(AutoGLMError):
    """An output could not be written whole; nothing half is left."""

    code = "write"


class BackendError(AutoGLMError):
    """A backend failed."""

    code = "backend"


class BackendNotFoundError(BackendError):
    """No backend of that name is registered."""

    code = "backend-not-found"


class BackendUnavailableError(BackendError):
    """The backend is registered, but its toolkit or device is not here."""

    code = "backend-unavailable"


class CompileError(BackendError):
    """A backend's compiler refused the model."""

    code = "compile"


class ExecutionError(BackendError):
    """An engine failed while running."""

    code = "execution"


class CommunicatorError(AutoGLMError):
    """A collective failed; `facts["rank"]` names the rank."""

    code = "communicator"


class ServeError(AutoGLMError):
    """A request could not be answered."""

    code = "serve"


class InvalidRequestError(ServeError):
    """The request is malformed."""

    code = "invalid-request"


class UnauthenticatedError(ServeError):
    """No valid key, token or certificate came with the request."""

    code = "unauthenticated"


class ForbiddenError(ServeError):
    """The client is known, and may not do this."""

    code = "forbidden"


class TooLargeError(ServeError):
    """The request is over a size limit; `facts` name it."""

    code = "too-large"


class UnsupportedTypeError(ServeError):
    """The request is in a form, or compressed in a way, that is not read here."""

    code = "unsupported-type"


class CancelledRequestError(ServeError):
    """The client went away before the answer."""

    code = "cancelled"


class NotOfferedError(ServeError):
    """This server, or this model, does not offer what was asked."""

    code = "not-offered"


class DrainingError(ServeError):
    """Starting, stopping, or every engine of the model is in quarantine."""

    code = "draining"


class ModelNotServedError(ServeError):
    """No such model or version is loaded."""

    code = "model-not-served"


class OverloadedError(ServeError):
    """The queue is full; try again later."""

    code = "overloaded"


class DeadlineError(ServeError):
    """The request's deadline passed."""

    code = "deadline"
