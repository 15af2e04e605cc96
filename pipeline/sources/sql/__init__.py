"""Source of the rows of a SQL query."""
