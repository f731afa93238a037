"""Starts every role and runs it until a signal."""
