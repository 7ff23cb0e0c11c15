"""Examples: each runs with one command, which its first lines name, and is run by a test."""
