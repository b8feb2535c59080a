"""The learning loop: decides, round after round, when to learn, what to try on a robot, and what to promote."""
