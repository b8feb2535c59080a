"""Policy networks in plain torch: the `FlowModel` seam, pi0 and pi0.5 behind it, critics beside it."""
