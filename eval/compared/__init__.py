"""A finished evaluation for people: beside another one question by question, and as a page."""
