"""ManiSkill on the CPU as a `pirl_contract` environment. Importing it loads neither torch nor the simulator.

Shape letters: D action dimensions, S state.
"""
