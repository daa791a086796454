"""The report's pages, figures and downloads, and the page that compares studies."""
