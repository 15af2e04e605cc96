"""Source of records that programs send over HTTP: receiver, durable spool, reader."""
