"""What is measured of a policy: log-probabilities, the probe set, gradients, samples."""
