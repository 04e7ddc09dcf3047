"""What other programs read and write: `files` holds learned guidance on disk."""
