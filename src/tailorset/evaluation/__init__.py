"""Stage evaluate: metrics, intervals, tables of scores."""
