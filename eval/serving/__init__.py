"""Serves a checkpoint by the OpenAI protocol, and asks any server that speaks it."""
