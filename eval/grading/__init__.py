"""Grades answers: marks, numbers, algebra, choices."""
