"""Who asks, what they may ask, and how much: keys, tokens, certificates, limits.

A transport calls `guard.authenticate(credentials)`; the gateway calls `guard.permit(client, model)`
and `guard.admit(client, nbytes)` before it reads a body; whatever changes the server (load, unload,
routes) calls `guard.permit(client, admin=True)` first.
"""

from autoglm.serve.guard.guard import Guard, GuardOptions
from autoglm.serve.guard.limits import Limit
from autoglm.serve.guard.names import is_loopback, open_warning
from autoglm.serve.guard.tokens import TokenOptions

__all__ = [
    "Guard",
    "GuardOptions",
    "Limit",
    "TokenOptions",
    "is_loopback",
    "open_warning",
]
