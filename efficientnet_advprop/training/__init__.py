"""The training methods, the optimization and the loop."""
