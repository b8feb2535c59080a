"""Jobs: training and evaluation requested over REST, each below its own reaper, with events and one final state."""
