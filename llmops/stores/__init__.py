"""Stores: records go in and come back. The journal is the truth of a run; MLflow is its mirror."""
