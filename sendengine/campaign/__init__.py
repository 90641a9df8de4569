"""Files in, report out: campaign and jobs files are read, checked, packed, sent through an engine, and reported."""
