"""What a layout costs: memory, step time, and the search for the fastest. No torch."""
