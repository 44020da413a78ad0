"""The machine: device, memory, processes, cores, progress."""
