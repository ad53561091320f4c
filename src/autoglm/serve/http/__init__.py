"""REST over HTTP/1.1 and HTTP/2: our envelope, the Open Inference Protocol, and the server's own
pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from autoglm.serve.listening import Listening
from autoglm.spec import API_VERSION

if TYPE_CHECKING:
    from autoglm.serve.core import Gateway
    from autoglm.serve.http.listener import Listener


class Http(Listening):
    """The transport `http`."""

    name = "http"
    api_version = API_VERSION

    def listener(self, gateway: Gateway, options: Mapping[str, object]) -> Listener:
        """uvicorn's server, with hypercorn for HTTP/2."""
        from autoglm.serve.http.listener import Listener

        return Listener(gateway, options)
