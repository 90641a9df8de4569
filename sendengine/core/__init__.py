"""Decides, never does: no clock, no chance, no socket, no event loop; time and random numbers are handed in."""
