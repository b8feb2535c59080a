"""Looking at stored episodes: their decisions drawn again by any version, and figures of what was recorded."""
