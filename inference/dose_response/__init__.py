"""Dose response: fits, intervals, statuses, and curves across patients."""
