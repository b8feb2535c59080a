"""Who may speak to the server, as what, how often and over what: tokens, scopes, limits, certificates, audit."""

from pirl_server.security.bind import check_bind, is_loopback
from pirl_server.security.descriptors import Shares, current_limit, raise_limit, shares
from pirl_server.security.gate import Caller, DeniedError, Gate
from pirl_server.security.interceptor import CallInterceptor
from pirl_server.security.limiter import Limiter
from pirl_server.security.pages import is_from_a_page
from pirl_server.security.permissions import PUBLIC, ROUTES, RPCS, SCOPES
from pirl_server.security.seats import Seat, Seats, listen
from pirl_server.security.tls import TlsFiles
from pirl_server.security.tokens import Token, TokenFile
from pirl_server.security.watch import GateWatcher
from pirl_server.security.watcher import CallWatch, Watcher

__all__ = [
    "PUBLIC",
    "ROUTES",
    "RPCS",
    "SCOPES",
    "CallInterceptor",
    "CallWatch",
    "Caller",
    "DeniedError",
    "Gate",
    "GateWatcher",
    "Limiter",
    "Seat",
    "Seats",
    "Shares",
    "TlsFiles",
    "Token",
    "TokenFile",
    "Watcher",
    "check_bind",
    "current_limit",
    "is_from_a_page",
    "is_loopback",
    "listen",
    "raise_limit",
    "shares",
]
