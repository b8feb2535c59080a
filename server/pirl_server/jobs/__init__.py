"""Jobs: training and evaluation asked for over REST, each below its own reaper, with events and a clear end."""
