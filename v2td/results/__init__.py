"""The cache of results: a recording that was transcribed before gets its text from there."""
