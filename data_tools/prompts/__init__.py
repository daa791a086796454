"""RL prompts from public sets, as Parquet files that veRL reads."""
