"""Benchmarks: how fast, and how good on held-out people."""
