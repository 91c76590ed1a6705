"""Is it well: status, preflight checks, alarms, notifications, logs, the support bundle."""
