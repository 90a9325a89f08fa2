"""What is written down: tables, named queries, paging, migrations. Every SQL statement of the project lives here."""
