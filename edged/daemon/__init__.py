"""What `edged.app` puts a running daemon together from: builders that return records, and helpers of the start and the
stop. Only the composition root and the commands import from here."""
