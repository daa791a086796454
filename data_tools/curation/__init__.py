"""Raw data sets of the paper to named, deduplicated, decontaminated sets with their provenance."""
