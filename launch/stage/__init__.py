"""One stage in the making: its job and workspace, the process or rank that makes it, its record."""
