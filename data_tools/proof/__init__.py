"""Proofs from files alone: pairs, preprocessed prefixes, blends, packs. Nothing is believed."""
