"""What an engine tells about itself: counters, histograms, snapshots, and what the loop and the collector cost."""
