"""One stage in the making: by a process alone, or by each of its ranks."""
