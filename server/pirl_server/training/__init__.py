"""Loops that make a policy better: flow matching on demonstrations and episodes, PPO on fresh rollouts, evaluation."""
