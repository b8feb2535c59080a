"""Training loops: flow matching on demonstrations and episodes, PPO on fresh rollouts, evaluation."""
