"""What names of files and folders say: well, stack, channel and slice, the users' way and the instruments'."""
