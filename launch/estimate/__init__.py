"""What a run would need: memory, time, layouts, number formats."""
