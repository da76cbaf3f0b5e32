"""The sweep: computes overdue access in SQL, and compares it with the findings of the watch."""
