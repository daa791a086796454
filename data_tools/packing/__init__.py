"""Supervised fine-tuning packs from files of conversations: any chat template, any length."""
