"""Files of transcripts in the object store."""
