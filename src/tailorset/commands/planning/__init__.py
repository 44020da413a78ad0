"""Estimate of a run: work counted from params.yaml, times the measured rates of this device."""
