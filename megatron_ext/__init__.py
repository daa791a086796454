"""Megatron extensions: tokens to weights. The only room that imports Megatron."""
