"""Tables in files: sheets of cells from CSV and Excel, guarded cells, and numbers in any notation."""
