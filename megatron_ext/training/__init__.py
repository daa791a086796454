"""The training loop: engine, data, schedule, loss spikes, pace."""
