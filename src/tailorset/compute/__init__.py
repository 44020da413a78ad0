"""The machine: device, memory, processes, and the operations that it is asked for."""
