"""`pirl episodes propose`: a success model's opinion of unlabelled episodes, without a job."""

from __future__ import annotations

from collections.abc import Sequence

from pirl_server.config.command_line import add_flags, read_flags
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.episodes.commands import parser_of, private, store_of
from pirl_server.paths import SUCCESS_MODELS
from pirl_server.registry.success_models import LATEST, SuccessModels
from pirl_server.training.progress import Printed
from pirl_server.training.success.propose import propose as run
from pirl_server.training.success.success_job import found_card
from pirl_server.training.success.success_judge import open_judge


@private
def propose(arguments: Sequence[str]) -> int:
    """Let a success model propose labels for unlabelled episodes; a person accepts or rejects them."""
    parser = parser_of("episodes propose", propose.__doc__)
    parser.add_argument("--model", default=LATEST, help="version of the success model (%(default)s)")
    add_flags(parser.add_argument_group("for which episodes"), EpisodeSelection)
    options = parser.parse_args(arguments)
    store, chosen = store_of(options.root), read_flags(EpisodeSelection, options)
    models = SuccessModels(options.root / SUCCESS_MODELS)
    card = found_card(models, options.model)
    found = run(store, open_judge(models, card), card, chosen, Printed())
    print(f"success model {card.version}: {found.success} successes and {found.failure} failures are proposed")
    for why, count in found.left_out.items():
        print(f"{count} not: {why}")
    return 0
