"""Data tools: text to tokens. No torch and no Megatron."""
