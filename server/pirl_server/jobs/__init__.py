"""Jobs: training and evaluation asked for over REST, each below its own reaper, with events and a clear end."""

from pirl_server.jobs.job import DamagedJobError, Job, JobStore, Status
from pirl_server.jobs.report import Reporter
from pirl_server.jobs.spec import Evaluate, FinetuneEpisodes, FinetuneSim, JobSpec, Sft, parse_spec
from pirl_server.jobs.supervisor import Supervisor

__all__ = [
    "DamagedJobError",
    "Evaluate",
    "FinetuneEpisodes",
    "FinetuneSim",
    "Job",
    "JobSpec",
    "JobStore",
    "Reporter",
    "Sft",
    "Status",
    "Supervisor",
    "parse_spec",
]
