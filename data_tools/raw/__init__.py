"""Readers of files that somebody else wrote: rows of JSONL (plain, gzip, zstd) and of Parquet."""
