"""Picks and pictures become preference pairs (IdGlow 3.4.3)."""

from trainers.pairs.collect import PairConfig, collect_pairs, load_training_pairs
from trainers.training_pairs import TrainingPair

__all__ = ["PairConfig", "TrainingPair", "collect_pairs", "load_training_pairs"]
