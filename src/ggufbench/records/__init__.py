"""The results: what a record holds, and where records lie."""
