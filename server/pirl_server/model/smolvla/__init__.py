"""SmolVLA: configuration, network, denoiser."""
