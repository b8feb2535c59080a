"""Episodes of other programs, in and out; bad input is an error that names the value and the fix, never a guess."""
