"""Online RL in simulation: PPO and GRPO."""
