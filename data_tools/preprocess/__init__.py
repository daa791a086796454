"""Raw rows to one Megatron .bin/.idx pair and a manifest: the same bytes for any worker count."""
