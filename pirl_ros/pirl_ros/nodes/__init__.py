"""The executables: thin nodes over the other folders."""
