"""The types of the schema, a noun a file, made from rows."""
