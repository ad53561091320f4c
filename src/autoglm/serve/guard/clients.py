"""The table of clients: whose certificate is whose, which of them may change the server, and what
single clients may ask.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from autoglm.config import Problem, Problems
from autoglm.documents import read_document
from autoglm.errors import ConfigError
from autoglm.serve.guard.limits import Limit
from autoglm.serve.guard.names import check_client

Name = Annotated[str, AfterValidator(check_client)]
Subject = Annotated[str, Field(min_length=1, max_length=1024)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ClientLimit(_Strict):
    """What one client may ask; what is left out is as for all."""

    rate: float | None = Field(default=None, ge=0)
    burst: float | None = Field(default=None, ge=0)
    max_bytes: int | None = Field(default=None, ge=1)

    def over(self, default: Limit) -> Limit:
        """The limit of this client, where `default` is everybody's."""
        return Limit(
            default.rate if self.rate is None else self.rate,
            default.burst if self.burst is None else self.burst,
            default.max_bytes if self.max_bytes is None else self.max_bytes,
        )


class Clients(_Strict):
    """The whole table."""

    subjects: dict[Subject, Name] = Field(default_factory=dict)  # none = a client is its CN
    admins: Annotated[frozenset[Name], Field(strict=False)] = frozenset()
    limits: dict[Name, ClientLimit] = Field(default_factory=dict)


def read_clients(path: Path) -> Clients:
    """The table in a .toml, .json or .yaml file; one ConfigError names everything that is wrong."""
    try:
        return Clients.model_validate(read_document(path))
    except ValidationError as error:
        raise ConfigError(
            "{where}: {problems}",
            hint="docs/security.md describes the table of clients.",
            where=str(path),
            problems=Problems(
                Problem(".".join(map(str, e["loc"])), repr(e["input"])[:80], str(e["msg"]))
                for e in error.errors(include_url=False)
            ),
        ) from error
