"""Models: immutable versions, aliases that point at them, evaluations, the promotion gate and the audit log."""

from pirl_server.registry.audit import AuditLog
from pirl_server.registry.evaluation import Evaluation, Evaluations, list_hash
from pirl_server.registry.gate import GateResult, check_gate
from pirl_server.registry.promotion import PRODUCTION, Promoter, PromotionRefusedError
from pirl_server.registry.routes import CANDIDATE, SHADOW, Routes
from pirl_server.registry.versions import ModelVersion, Registry

__all__ = [
    "CANDIDATE",
    "PRODUCTION",
    "SHADOW",
    "AuditLog",
    "Evaluation",
    "Evaluations",
    "GateResult",
    "ModelVersion",
    "Promoter",
    "PromotionRefusedError",
    "Registry",
    "Routes",
    "check_gate",
    "list_hash",
]
