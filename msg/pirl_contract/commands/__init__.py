"""The `pirl` command, and the commands that need the contract only."""
