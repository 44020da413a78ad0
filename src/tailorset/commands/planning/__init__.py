"""What a run will take before it runs: work counted from params.yaml, times the measured rates of this device."""
