"""Comparative benchmarks. Each prints one JSON object; none is part of a service."""
