"""What stands inside veRL and Ray: platform, rollout, agent loop, sampler, shims."""
