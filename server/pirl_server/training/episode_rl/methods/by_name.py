"""The methods by the names that a job's config gives them."""

from __future__ import annotations

from pirl_server.config.training import LoggedMethod
from pirl_server.training.episode_rl.methods.advantage_weighted import AdvantageWeighted
from pirl_server.training.episode_rl.methods.dagger import Dagger
from pirl_server.training.episode_rl.methods.dsrl import Dsrl
from pirl_server.training.episode_rl.methods.filtered_bc import FilteredBc
from pirl_server.training.episode_rl.methods.method import MakeMethod
from pirl_server.training.episode_rl.methods.ppo_logged import PpoLogged
from pirl_server.training.episode_rl.methods.progress import Progress
from pirl_server.training.episode_rl.methods.recap import Recap

METHODS: dict[LoggedMethod, MakeMethod] = {
    "advantage_weighted": AdvantageWeighted,
    "filtered_bc": FilteredBc,
    "dagger": Dagger,
    "recap": Recap,
    "progress": Progress,
    "ppo_logged": PpoLogged,
    "dsrl": Dsrl,
}
