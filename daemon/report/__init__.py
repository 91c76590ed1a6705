"""The report of a plate: sections as data, written as HTML and as PDF."""
