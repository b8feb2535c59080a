"""The paper as pure torch functions: one equation, one function.

`docs/algorithm.md` maps symbols to equations, functions and tests.
"""
