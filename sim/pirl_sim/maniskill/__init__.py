"""ManiSkill as an `Env`, and as a simulated robot."""
