"""PostgreSQL: the server log (jsonlog, csvlog, stderr) and pgaudit."""
