"""Reinforcement learning from rewards: advantages, KL penalties, rewards and rollouts."""
