"""The paper's tables, the claims about them and the verdicts, as data and text."""
