"""Arithmetic on a model and a layout: letters, parameters, FLOPs, products, cuts. No Megatron."""
