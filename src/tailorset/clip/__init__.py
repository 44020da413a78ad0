"""CLIP: load, score images against labels, losses on its scores."""
