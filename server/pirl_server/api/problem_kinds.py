"""The kinds of problem that the API answers with: the last part of `type`, stable for clients to decide by.

`docs/how-to/use-the-api.md` has this table, and a test compares them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ProblemKind:
    """One of them."""

    status: int
    meaning: str
    """what is wrong, and what a client does"""


KINDS: dict[str, ProblemKind] = {
    "bad-request": ProblemKind(400, "no HTTP request, or a body without a Content-Length: mend the client"),
    "unauthenticated": ProblemKind(401, "no valid token: send one as `Authorization: Bearer TOKEN`"),
    "forbidden": ProblemKind(403, "the token's scope, or a page of another site, may not do this"),
    "not-found": ProblemKind(404, "nothing here has this name; damaged files are named in `detail`"),
    "not-connected": ProblemKind(404, "the robot has no session, so that no stop reaches it: use its own"),
    "method-not-allowed": ProblemKind(405, "the path has other methods: they are in `Allow`"),
    "request-timeout": ProblemKind(408, "the body did not arrive in time"),
    "conflict": ProblemKind(409, "the present state forbids it: look, then decide"),
    "precondition-failed": ProblemKind(412, "`If-Match` names an earlier state: look again, then repeat with its ETag"),
    "content-too-large": ProblemKind(413, "the body is larger than the server takes"),
    "invalid-request": ProblemKind(422, "fields are wrong: `errors` names each with its fix"),
    "idempotency-key-reused": ProblemKind(422, "the key came with another body before: use a new one"),
    "too-many-requests": ProblemKind(429, "wait as long as `Retry-After` says"),
    "http-error": ProblemKind(400, "another error of HTTP: see `status`"),
    "internal-error": ProblemKind(500, "a bug: the server's log has the rest"),
    "not-installed": ProblemKind(501, "the server lacks an optional package, which `detail` names"),
    "busy": ProblemKind(503, "too much at once, or a lock is held: repeat later"),
    "no-storage": ProblemKind(503, "the disk did not take it, nothing was done: make room, then repeat"),
    "not-ready": ProblemKind(503, "no policy is served yet, or something that robots need has failed"),
    "stopping": ProblemKind(503, "the server is stopping: repeat when it is back"),
}
