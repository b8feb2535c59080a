"""pi0 and pi0.5: configuration, network, denoiser."""
