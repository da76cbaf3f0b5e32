"""Computes in SQL what should be gone, and compares it with what the watch reports."""
