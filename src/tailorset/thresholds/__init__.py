"""Stage fit_thresholds: calibrated probabilities, decisions with bounded risk, novelty."""
