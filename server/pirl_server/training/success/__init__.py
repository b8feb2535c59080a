"""Success models: what an episode's final images say of how it ended. N is episodes, M those of them that are used."""
