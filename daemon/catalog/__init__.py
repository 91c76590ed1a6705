"""SQLite: the one writer, readers, the schema, and the audit trail."""
