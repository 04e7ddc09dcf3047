"""What other programs read and write: guidance in `files`, schedules as JSON in `schedules`."""
