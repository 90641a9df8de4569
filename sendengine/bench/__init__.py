"""Measures what the engine does with jobs that come at a rate of their own, and draws it."""
