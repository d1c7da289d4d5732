"""Traces of a sampled share of fixes. `exporter` needs the extra `traces` and is imported only if
TRACES_ENDPOINT is set."""
