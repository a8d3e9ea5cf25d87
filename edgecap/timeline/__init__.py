"""Device ticks → rig time: fit, bound, epochs, gaps."""
