"""The paper's benchmarks on any checkpoint: suites, rows, prompts, samples that last, scores."""
