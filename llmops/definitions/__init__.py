"""Definitions: files in git go in, checked values come out. What people write, read strictly and never executed."""
